"""The teacher of a run that distils: found, told apart, and loaded once, frozen.

find         where base and adapter are; no weight is read
settle_key   its fingerprint goes into the objective, and so into the identity of the run
check_pair   the student's tokenizer must be the teacher's
opened       base and adapter as a policy without gradients
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.store import AdapterSource, find_adapter
from graftlab.choices import restore
from graftlab.errors import ConfigError, ModelError
from graftlab.models.base import ModelSpec
from graftlab.models.folder import model_in

if TYPE_CHECKING:
    import torch

    from graftlab.objectives.base import Objective
    from graftlab.objectives.policy import Policy
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.training.precision import Resolved

ROLE = "teacher"
"""Under which a teacher's base rests between the jobs of a process, beside the students'."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """What teaches: a base, and the adapter on it (None where the model stands by itself)."""

    path: str
    model: ModelSpec
    source: AdapterSource | None

    def load_tokenizer(self) -> Tokenizer:
        """The one that it was trained with."""
        from graftlab.text.tokenizer import load_tokenizer

        folder = self.source.folder if self.source is not None else None
        if folder is None or not any(folder.glob("tokenizer*")):
            return self.model.load_tokenizer()
        trusted = bool(getattr(self.model, "trust_remote_code", False))
        return load_tokenizer(folder, trust_remote_code=trusted)

    def fingerprint(self) -> str:
        """16 hex digits of base and adapter; another training gives others. Raises ModelError."""
        from graftlab.models.fingerprint import file_digest

        base = self.model.fingerprint()
        if self.source is None:
            return base
        content = [base, self.source.config(), file_digest(self.source.file)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find(path: str, *, base: str | None = None) -> Teacher:
    """The teacher meant by `objective.teacher`. Raises ModelError naming the key.

    `base` is the model folder under an adapter whose run is not known.
    """
    try:
        return _find(path, base)
    except (ModelError, ConfigError) as error:
        raise ModelError(f"objective.teacher={path}: {error}") from error


def asked(objective: Objective) -> Teacher | None:
    """The teacher that an objective asks; None where it asks none. Raises ModelError."""
    path = objective.asks()
    return None if path is None else find(path, base=getattr(objective, "base", None))


def _find(path: str, base: str | None) -> Teacher:
    whole = model_in(Path(path).expanduser())
    if whole is None:
        source = find_adapter(path)
        whole = model_in(source.folder)
    if whole is not None:
        whole.check()
        return Teacher(path, whole, None)
    described = source.run().get("model")
    if base is not None and (model := model_in(Path(base).expanduser())) is not None:
        model.check()
        return Teacher(path, model, source)
    if base is not None:
        raise ModelError(f"objective.base={base} is no model folder.")
    if described is None:
        named = source.config().get("base_model_name_or_path")
        raise ModelError(
            f"it has no run.yaml that says which base it belongs to (its config names {named}): "
            "a teacher is a run of graftlab, or a model folder. Else give objective.base=FOLDER."
        )
    model = restore(ModelSpec, described, path="model")  # type: ignore[type-abstract]
    model.check()
    return Teacher(path, model, source)


def settle_key(objective: Objective) -> None:
    """Put the teacher's fingerprint into the objective, if it asks one.

    Raises ModelError where the teacher is missing, or no longer the one that the key is of.
    """
    teacher = asked(objective)
    if teacher is None:
        return
    asking: Any = objective
    key = teacher.fingerprint()
    if asking.key not in (None, key):
        raise ModelError(
            f"objective.teacher={teacher.path} is not the teacher this run began with (fingerprint "
            f"{key}, it was {asking.key}). Bring that one back, or start a new run."
        )
    asking.key = key


def check_pair(objective: Objective, tokenizer: Tokenizer) -> None:
    """Raise ConfigError unless the student's tokenizer is the teacher's, template and all."""
    from graftlab.text.same import vocabulary_difference

    teacher = asked(objective)
    if teacher is None:
        return
    path, theirs = teacher.path, teacher.load_tokenizer()
    different = vocabulary_difference(tokenizer, theirs)
    if different is not None:
        raise ConfigError(
            f"objective.teacher={path} has another tokenizer than the student ({different}): it "
            "cannot judge the student's words. Take a student of the same family, or "
            f"model=draft model.of={path}."
        )
    if tokenizer.template != theirs.template:
        folder = teacher.source.folder if teacher.source else teacher.model.folder()
        template = folder / "chat_template.jinja"
        fix = (
            f"model.template={template}" if template.is_file() else "its template (model.template)"
        )
        raise ConfigError(
            f"objective.teacher={path} was trained with another chat template than the student's: "
            f"it would be asked in a form that it does not know. Give {fix}."
        )


@contextmanager
def opened(
    objective: Objective, *, precision: Resolved, device: torch.device
) -> Iterator[Policy | None]:
    """The teacher as a frozen policy in eval mode; None for an objective that asks none.

    Raises ModelError where the adapter was trained on another base than there is now.
    """
    from graftlab.models.cache import lend
    from graftlab.objectives.policy import Policy

    teacher = asked(objective)
    if teacher is None:
        yield None
        return
    with lend(teacher.model, dtype=precision.base_dtype, device=device, role=ROLE) as base:
        adapter = None
        if teacher.source is not None:
            trained_on = teacher.source.base_fingerprint()
            if trained_on not in (None, base.fingerprint):
                raise ModelError(
                    f"objective.teacher={teacher.path} was trained on another base (fingerprint "
                    f"{trained_on}) than {base.name} is now ({base.fingerprint}): what it would "
                    "teach means nothing."
                )
            adapter = base.load_adapter(teacher.source, dtype=precision.adapter_dtype)
        base.model.requires_grad_(False)
        base.model.eval()
        yield Policy(base, adapter)


def num_weights(objective: Objective) -> int:
    """Weights of the teacher's base and adapter, from the files' headers; 0 without a teacher."""
    from graftlab.models.weights import file_tensors, stored_tensors

    teacher = asked(objective)
    if teacher is None:
        return 0
    if (published := teacher.model.published) is not None:
        shapes = [*published.tensors().values()]
    else:
        shapes = [tensor.shape for tensor in stored_tensors(teacher.model.folder()).values()]
    if teacher.source is not None and teacher.source.file.suffix == ".safetensors":
        shapes += [tensor.shape for tensor in file_tensors(teacher.source.file).values()]
    return sum(map(math.prod, shapes))
