"""`lr=auto`, `lora.rank=auto` and `epochs=auto`: the numbers that `plan` advises, and why.

They are found before a run is compared with others, so that run.yaml, sweeps and resuming know
numbers only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graftlab.errors import AUTO, GraftlabError
from graftlab.recipes.dataset import ensure_dataset
from graftlab.training.guides import GUIDES, TINY, usual_epochs, usual_rank, usual_rate

if TYPE_CHECKING:
    from graftlab.training.spec import TrainSpec


def resolve_auto(spec: TrainSpec) -> list[str]:
    """Put numbers in place of `auto`; returns a line for each, with its reason.

    What depends on data that a recipe has yet to make stays as it is. Raises GraftlabError where
    the data cannot be read.
    """
    said = []
    if AUTO in (spec.epochs, spec.lora.rank):
        documents = _documents(spec)
        if documents is None:
            return []
        if spec.lora.rank == AUTO:
            spec.lora.rank = usual_rank(documents)
            said.append(f"lora.rank={spec.lora.rank} (auto: {documents:,} conversations)")
        if spec.epochs == AUTO:
            spec.epochs = usual_epochs(documents)
            said.append(f"epochs={spec.epochs} (auto: {documents:,} conversations)")
    if spec.lr == AUTO:
        parameters = num_parameters(spec)
        spec.lr = usual_rate(parameters=parameters, scale=_scale(spec), full=spec.lora.full)
        said.append(f"lr={spec.lr:g} (auto: {_why(spec, parameters)})")
    return said


def resolve_auto_now(spec: TrainSpec) -> list[str]:
    """The same for whoever needs the numbers now: data that a recipe has yet to make is made.

    Raises GraftlabError where it cannot be made or read.
    """
    said = resolve_auto(spec)
    if AUTO in (spec.epochs, spec.lora.rank, spec.lr):
        ensure_dataset(spec.data)
        said += resolve_auto(spec)
    return said


def num_parameters(spec: TrainSpec) -> int:
    """Weights of the base, from its files' headers; those of a large one where nobody knows."""
    from graftlab.models.metadata import read_metadata

    try:
        return sum(math.prod(shape) for shape in read_metadata(spec.model).tensors.values())
    except GraftlabError:  # a hub model that is not here yet
        return TINY


def _documents(spec: TrainSpec) -> int | None:
    """Conversations that will be trained on; None while they are not made yet."""
    data: Any = spec.data
    if not data.has_files:
        return data.profile.documents if data.profile.known else None
    if getattr(data, "recipe", None) is not None and not data.folder().is_dir():
        return None
    return len(data.load(reserved=frozenset()).train)


def _scale(spec: TrainSpec) -> float:
    """What the update is multiplied with: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    rank = spec.lora.rank
    divisor = math.sqrt(rank) if spec.lora.rslora else rank
    return float(spec.lora.effective_alpha / divisor)


def _why(spec: TrainSpec, parameters: int) -> str:
    if parameters < TINY:
        return f"a base of {parameters / 1e6:.1f} million parameters"
    if spec.lora.full:
        return "all weights of a large base are trained"
    product = f"{GUIDES:.1e}".replace("e-0", "e-")
    return f"lr x scale is about {product} in the guides, and the scale is {_scale(spec):g}"
