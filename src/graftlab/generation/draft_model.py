"""The draft of `sample draft=...`: found, checked against the base's vocabulary, loaded.

RUN/                  a run of lora=none: RUN/adapter is the whole model
RUN/                  a run that trained an adapter: its base with the adapter on
MODEL/                a model folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftlab.errors import GraftlabError, ModelError

if TYPE_CHECKING:
    import torch

    from graftlab.adapters.artifact import TrainedModel
    from graftlab.generation.speculative import Draft
    from graftlab.models.base import Base
    from graftlab.text.tokenizer import Tokenizer


def find_draft(path: str) -> TrainedModel:
    """The draft meant by `path`. Raises ModelError saying what was looked for."""
    from graftlab.adapters.artifact import find_artifact

    try:
        return find_artifact(path).standing_alone(advice="give the folder of a whole model")
    except GraftlabError as error:
        raise ModelError(f"draft={path}: {error}") from error


def load_draft(
    found: TrainedModel | None,
    base: Base,
    tokenizer: Tokenizer,
    *,
    dtypes: tuple[torch.dtype, torch.dtype],
    num_tokens: int,
) -> Draft | None:
    """The draft where `base` is, in the `dtypes` of base and adapter; None where none is wanted.

    Raises ModelError when its vocabulary is not that of `tokenizer`.
    """
    from graftlab.adapters.attach import load_trained
    from graftlab.console import say
    from graftlab.generation.speculative import Draft
    from graftlab.text.same import piece_difference

    if found is None:
        return None
    if (different := piece_difference(tokenizer, found.load_tokenizer())) is not None:
        raise ModelError(
            f"draft={found.path} has another vocabulary: {different}. A draft must share the "
            "base's tokenizer; one made of it by distillation does."
        )
    small = found.model.load(dtype=dtypes[0], device=base.device)
    load_trained(small, found, dtype=dtypes[1])
    times = base.num_parameters / small.num_parameters
    say(f"draft: {found.path}, {times:.0f} times smaller, {num_tokens} tokens a round")
    return Draft(small, num_tokens)
