"""Code that a model brings along: found by its names in JSON, run only on the command line's word.

`auto_map` in config.json or tokenizer_config.json names Python files beside it. Trust in them is
`model.trust_remote_code=true`, typed for this call: a `run.yaml` says only what was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from graftlab.errors import ModelError

if TYPE_CHECKING:
    from graftlab.models.base import ModelSpec

KEY = "trust_remote_code"

Spec = TypeVar("Spec", bound="ModelSpec")


class UntrustedError(ModelError):
    """A model that cannot be loaded without code of its own, which nobody has trusted."""


def without_trust(model: Spec) -> Spec:
    """`model` with the trust taken back that the file it was read from claims."""
    if hasattr(model, KEY):
        setattr(model, KEY, False)
    return model


def names_code(file: Path, what: str) -> str | None:
    """The class in a file of its own that `auto_map` names for `what`; None without one.

    Raises ModelError for a file that cannot be read.
    """
    from graftlab.models.weights import read_json

    named = read_json(file).get("auto_map") if file.is_file() else None
    found = named.get(what) if isinstance(named, dict) else named  # tokenizers once had a list
    if isinstance(found, list | tuple):
        found = next((name for name in found if name), None)
    return None if found is None else str(found)


def require_trust(folder: Path, model: ModelSpec) -> None:
    """Raise UntrustedError where `folder` needs code of its own and nobody has trusted it."""
    if getattr(model, KEY, False):
        return
    file = folder / "config.json"
    code = names_code(file, "AutoModelForCausalLM") or names_code(file, "AutoConfig")
    if code is not None and not _is_known(file):
        raise UntrustedError(
            f"{folder} is a model with code of its own ({code}, named by auto_map in config.json), "
            "which runs only by model.trust_remote_code=true on this command line: read it first."
        )


def _is_known(file: Path) -> bool:
    """Whether transformers has the architecture itself, so that no further code is needed."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from graftlab.models.weights import read_json

    return read_json(file).get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
