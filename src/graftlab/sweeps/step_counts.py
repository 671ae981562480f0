"""How long the jobs of a sweep are, known before any of them starts: for trunks and their line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from graftlab.errors import GraftlabError
from graftlab.plugins import load_inherited
from graftlab.registry import dump
from graftlab.sweeps.prefix_sharing import Length, regardless_of_length
from graftlab.training.spec import TrainSpec


def lengths_apart(specs: Sequence[TrainSpec]) -> list[Length] | None:
    """`lengths_of`, found in another process: tokenizers and devices bring PyTorch along, and the
    launching process, which lives as long as the sweep, stays small.
    """
    if not _may_share(specs):
        return None
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=load_inherited) as pool:
        try:
            return pool.submit(lengths_of, specs).result()
        except BrokenProcessPool as error:
            raise GraftlabError(f"How long the jobs are could not be measured: {error}") from error


def lengths_of(specs: Sequence[TrainSpec]) -> list[Length] | None:
    """The length of every job, from the real token counts; the weights are not loaded.

    None where no two jobs differ in their length alone, or where tokens can only be guessed, as the
    tokenizer is not on this machine. Raises GraftlabError for data that cannot be read.
    """
    if not _may_share(specs):
        return None
    from graftlab.planning.estimate import compiles
    from graftlab.planning.lookup_cache import LookupCache
    from graftlab.training.device import pick_device

    cache, lengths = LookupCache(), []
    for spec in specs:
        if not cache.documents(spec).exact:
            return None
        load = cache.workload(
            spec,
            batch_size=spec.batch_size,
            accumulate=spec.accumulate,
            max_length=spec.packing.max_length,
        )
        parameters = sum(map(math.prod, cache.base(spec).tensors.values()))
        lengths.append(
            Length(
                spec=spec,
                steps_per_epoch=load.budget.steps_per_epoch,
                compiled=compiles(spec, load, parameters, pick_device(spec.trainer.accelerator)),
            )
        )
    return lengths


def _may_share(specs: Sequence[TrainSpec]) -> bool:
    """Whether any two jobs differ in their length alone."""
    kinds = Counter(regardless_of_length(dump(spec)) for spec in specs)
    return any(count > 1 for count in kinds.values())
