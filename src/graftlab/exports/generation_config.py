"""`generation_config.json` of an export: where replies end, as in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.models.weights import read_json

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

FILE = "generation_config.json"


def generation_config(base: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The base's settings, with every token at which a reply of the template ends.

    The template's stop tokens come first, then those of the base, which may end a reply as well.
    """
    found = read_json(base / FILE) if (base / FILE).is_file() else {}
    described = read_json(base / "config.json")
    own = found.get("eos_token_id", described.get("eos_token_id"))
    ends = [*tokenizer.stop_ids, *(own if isinstance(own, list) else [own])]
    found.pop("_from_model_config", None)  # else transformers may take config.json's word instead
    found["eos_token_id"] = list(dict.fromkeys(index for index in ends if index is not None))
    return found
