"""How long the jobs of a sweep are, known before any of them starts: for trunks and their line.

Measured in a process of its own:  python -m graftlab.sweeps.step_counts < JOBS.json

The launching process lives as long as the sweep, and stays small this way: tokenizers and devices
bring PyTorch along. The last line of the output is JSON: the lengths, or what was refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graftlab.errors import GraftlabError
from graftlab.registry import dump, restore
from graftlab.sweeps.prefix_sharing import Length, regardless_of_length

if TYPE_CHECKING:
    from graftlab.planning.workload import Workload
    from graftlab.training.spec import TrainSpec

DECISIVE = ("model", "data", "packing", "batch_size", "accumulate", "trainer")
"""Keys that say how many steps an epoch has."""


def lengths_apart(specs: Sequence[TrainSpec]) -> list[Length] | None:
    """`lengths_of`, found in another process. Raises GraftlabError where it did."""
    if not _may_share(specs):
        return None
    done = subprocess.run(
        [sys.executable, "-m", "graftlab.sweeps.step_counts"],
        input=json.dumps([dump(spec) for spec in specs]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise GraftlabError(f"How long the jobs are could not be measured:\n{done.stderr.strip()}")
    told = json.loads(done.stdout.splitlines()[-1])
    if "refused" in told:
        raise GraftlabError(told["refused"])
    if told["lengths"] is None:
        return None
    return [
        Length(spec=spec, steps_per_epoch=steps, compiled=compiled)
        for spec, (steps, compiled) in zip(specs, told["lengths"], strict=True)
    ]


def main() -> int:
    """Measure the jobs of the input, and print what was found."""
    from graftlab.training.spec import TrainSpec

    specs = [restore(TrainSpec, config) for config in json.load(sys.stdin)]
    told: dict[str, Any]
    try:
        lengths = lengths_of(specs)
        known = [(length.steps_per_epoch, length.compiled) for length in lengths or ()]
        told = {"lengths": None if lengths is None else known}
    except GraftlabError as error:
        told = {"refused": str(error)}
    print(json.dumps(told))
    return 0


def lengths_of(specs: Sequence[TrainSpec]) -> list[Length] | None:
    """The length of every job, from the real token counts; the weights are not loaded.

    None where no two jobs differ in their length alone, or where tokens can only be guessed, as the
    tokenizer is not on this machine. Raises GraftlabError for data that cannot be read.
    """
    if not _may_share(specs):
        return None
    loads: dict[str, tuple[Workload, int]] = {}
    lengths = []
    for spec in specs:
        key = _key(spec)
        if key not in loads:
            loads[key] = _measured(spec)
        load, parameters = loads[key]
        if not load.exact:
            return None
        per_epoch = load.budget.steps_per_epoch
        compiled = _compiled(spec, load, parameters)
        lengths.append(Length(spec=spec, steps_per_epoch=per_epoch, compiled=compiled))
    return lengths


def _may_share(specs: Sequence[TrainSpec]) -> bool:
    """Whether any two jobs differ in their length alone."""
    kinds = Counter(regardless_of_length(dump(spec)) for spec in specs)
    return any(count > 1 for count in kinds.values())


def _key(spec: TrainSpec) -> str:
    config: dict[str, Any] = dump(spec)
    asked = spec.objective.anchored()
    anchors = None if asked is None else (asked, spec.seed)
    decisive = {name: config[name] for name in DECISIVE} | {"anchors": anchors}
    return json.dumps(decisive, sort_keys=True, default=str)


def _measured(spec: TrainSpec) -> tuple[Workload, int]:
    """Tokens and steps of an epoch, and the base's parameters."""
    from graftlab.models.metadata import read_metadata
    from graftlab.planning.inputs import read_documents, shape_of
    from graftlab.planning.workload import StepSettings, lay_out

    base = read_metadata(spec.model)
    documents, _, _ = read_documents(spec, base)
    schedule = StepSettings(
        batch_size=spec.batch_size,
        accumulate=spec.accumulate,
        epochs=1,
        max_steps=None,
        processes=spec.trainer.devices,
    )
    load = lay_out(documents, spec.packing, schedule)
    return load, shape_of(base, spec, spec.lora.rank).parameters


def _compiled(spec: TrainSpec, load: Workload, parameters: int) -> bool:
    """Whether the run will compile its layers, as it decides itself (`training/run.py`)."""
    from graftlab.models.compile import plan_compile
    from graftlab.training.device import pick_device

    if spec.compile == "off" or spec.model.compile_obstacle is not None:
        return False
    if spec.compile == "auto" and spec.lora.dora:
        return False
    steps = spec.max_steps or spec.epochs * load.budget.steps_per_epoch
    decided, _ = plan_compile(
        spec.compile,
        planned_steps=steps * spec.accumulate,
        tokens_per_step=load.tokens_per_step / spec.accumulate / load.processes,
        device=pick_device(spec.trainer.accelerator),
        num_parameters=parameters,
    )
    return decided


if __name__ == "__main__":
    sys.exit(main())
