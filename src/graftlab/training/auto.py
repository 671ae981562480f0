"""`lr=auto`, `lora.rank=auto`, `epochs=auto`, `packing=auto`: what stands for `auto`, and why.

It is found before a run is compared with others, so that run.yaml, sweeps and resuming know what is
done only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graftlab.errors import AUTO, ConfigError, GraftlabError
from graftlab.recipes.dataset import ensure_dataset
from graftlab.training.guides import GUIDES, TINY, usual_epochs, usual_rank, usual_rate

if TYPE_CHECKING:
    from graftlab.models.base import ModelSpec
    from graftlab.packing.plan import Packing
    from graftlab.training.spec import TrainSpec


def resolve_auto(spec: TrainSpec) -> list[str]:
    """Put numbers in place of `auto`; returns a line for each, with its reason.

    What depends on data that a recipe has yet to make stays as it is. Raises GraftlabError where
    the data cannot be read, and ConfigError where the base cannot do what is asked.
    """
    compares = spec.objective.takes != "answers"
    said = resolve_packing(spec.packing, spec.model)
    said += _one_row_a_pass(spec)
    if AUTO in (spec.epochs, spec.lora.rank):
        documents = _documents(spec)
        if documents is None:
            return said
        if spec.lora.rank == AUTO:
            spec.lora.rank = usual_rank(documents)
            said.append(f"lora.rank={spec.lora.rank} (auto: {documents:,} conversations)")
        if spec.epochs == AUTO:
            spec.epochs = usual_epochs(documents, compares=compares)
            what = "preferences" if compares else "conversations"
            said.append(f"epochs={spec.epochs} (auto: {documents:,} {what})")
    if spec.lr == AUTO:
        parameters = num_parameters(spec)
        spec.lr = usual_rate(
            parameters=parameters, scale=_scale(spec), full=spec.lora.full, compares=compares
        )
        said.append(f"lr={spec.lr:g} (auto: {_why(spec, parameters)})")
    return said


def resolve_packing(packing: Packing, model: ModelSpec) -> list[str]:
    """Settle `packing=auto`; a line for the log where the base decides it.

    Raises ConfigError where rows are to be shared on a base that computes one document a pass.
    """
    if packing.strategy == "none":
        return []
    obstacle = model.packing_obstacle
    if obstacle and packing.strategy != AUTO:
        raise ConfigError(
            f"packing={packing.strategy}: {model.name} cannot keep the conversations of a row "
            f"apart, as {obstacle}. Leave packing out, or packing=none: one conversation per row."
        )
    packing.strategy = "none" if obstacle else "best-fit"
    return [f"packing=none (auto: {obstacle})"] if obstacle else []


def _one_row_a_pass(spec: TrainSpec) -> list[str]:
    """Micro-batches of one row where each document needs a pass; as many rows a step as before."""
    if spec.batch_size == 1 or spec.packing.strategy != "none" or not spec.model.packing_obstacle:
        return []
    spec.accumulate, spec.batch_size = spec.accumulate * spec.batch_size, 1
    return [f"batch_size=1 accumulate={spec.accumulate}: one row a pass, as many rows a step"]


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
    """Weights of the base, from its files' headers; those of a large one where nobody knows.

    Raises ModelError for a folder that cannot be trained, such as a quantised one.
    """
    from graftlab.models.metadata import read_metadata

    try:
        return sum(math.prod(shape) for shape in read_metadata(spec.model).tensors.values())
    except GraftlabError:
        if spec.model.on_disk:
            raise
        return TINY  # a hub model that is not here yet


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
    tenth = "" if spec.objective.takes == "answers" else "; a tenth of it for preferences"
    return _reason(spec, parameters) + tenth


def _reason(spec: TrainSpec, parameters: int) -> str:
    if parameters < TINY:
        return f"a base of {parameters / 1e6:.1f} million parameters"
    if spec.lora.full:
        return "all weights of a large base are trained"
    product = f"{GUIDES:.1e}".replace("e-0", "e-")
    return f"lr x scale is about {product} in the guides, and the scale is {_scale(spec):g}"
