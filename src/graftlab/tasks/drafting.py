"""The draft of `sample draft=...`: found, checked against the base's vocabulary, loaded.

RUN/                  a run of lora=full: RUN/adapter is the whole model
RUN/                  a run that trained an adapter: its base with the adapter on
MODEL/                a model folder
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, ModelError

if TYPE_CHECKING:
    import torch

    from graftlab.adapters.store import AdapterSource
    from graftlab.generation.speculative import Draft
    from graftlab.models.base import Base, ModelSpec
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class FoundDraft:
    """A draft whose files are there; nothing heavy is loaded yet."""

    path: str
    source: AdapterSource | None
    """Its adapter; None where it is a whole model."""
    model: ModelSpec


def find_draft(path: str) -> FoundDraft:
    """The draft meant by `path`. Raises ModelError saying what was looked for."""
    from graftlab.adapters.store import find_adapter
    from graftlab.models.folder import model_in
    from graftlab.tasks.sample import trained_model

    place = Path(path).expanduser()
    try:
        for folder in (place, place / "adapter"):
            if (model := model_in(folder)) is not None:
                model.check()
                return FoundDraft(path, None, model)
        source = find_adapter(path)
        return FoundDraft(path, source, trained_model(source))
    except GraftlabError as error:
        raise ModelError(f"draft={path}: {error}") from error


def load_draft(
    found: FoundDraft | None,
    base: Base,
    tokenizer: Tokenizer,
    *,
    dtypes: tuple[torch.dtype, torch.dtype],
    num_tokens: int,
) -> Draft | None:
    """The draft where `base` is, in the `dtypes` of base and adapter; None where none is wanted.

    Raises ModelError when its vocabulary is not that of `tokenizer`.
    """
    from graftlab.generation.speculative import Draft
    from graftlab.tasks.sample import load_onto, trained_tokenizer
    from graftlab.tracking.console import say

    if found is None:
        return None
    _require_same_vocabulary(found, tokenizer, trained_tokenizer(found.source, found.model))
    small = found.model.load(dtype=dtypes[0], device=base.device)
    load_onto(small, found.source, dtype=dtypes[1])
    times = base.num_parameters / small.num_parameters
    say(f"draft: {found.path}, {times:.0f} times smaller, {num_tokens} tokens a round")
    return Draft(small, num_tokens)


def _require_same_vocabulary(found: FoundDraft, ours: Tokenizer, its: Tokenizer) -> None:
    """The same id must be the same text to both; how either splits text does not matter."""
    if ours.fingerprint == its.fingerprint:
        return
    if ours.vocab_size == its.vocab_size:
        ids = range(ours.vocab_size)
        pairs = zip(ours.pieces(ids), its.pieces(ids), strict=True)
        other = next(((i, *pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        if other is None:
            return
        difference = f"token {other[0]} is {other[1]!r} to the base and {other[2]!r} to the draft"
    else:
        difference = f"the base's has {ours.vocab_size} tokens, the draft's {its.vocab_size}"
    raise ModelError(
        f"draft={found.path} has another vocabulary: {difference}. A draft must share the base's "
        "tokenizer; one made of it by distillation does."
    )
