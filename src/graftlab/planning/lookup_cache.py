"""What plans look up, kept for the next plan: a sweep of a hundred jobs reads its data once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from graftlab.models.metadata import ModelMetadata, read_metadata
from graftlab.planning.inputs import read_documents
from graftlab.planning.workload import Documents, StepSettings, Workload, lay_out
from graftlab.registry import dump
from graftlab.training.spec import TrainSpec

Found = TypeVar("Found")


@dataclass(slots=True)
class LookupCache:
    """Bases, documents, packing plans and the processor's speed, each looked up once."""

    _kept: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def base(self, spec: TrainSpec) -> ModelMetadata:
        """The base's shapes. Raises ModelError."""
        return self._once(("base", _key(spec.model)), lambda: read_metadata(spec.model))

    def documents(self, spec: TrainSpec) -> Documents:
        """Lengths of the documents, counted or estimated. Raises GraftlabError."""
        # Of the packing only this matters: validation drops what is longer than a row.
        packed = spec.packing.max_length, spec.packing.share_prompts
        objective = spec.objective
        anchors = objective.anchor_data()
        asked = objective.uses_teacher_answers(), objective.takes, anchors, anchors and spec.seed
        key = _key(spec.model, spec.data, *packed, *asked)
        return self._once(("documents", key), lambda: read_documents(spec, self.base(spec)))

    def workload(
        self, spec: TrainSpec, *, batch_size: int, accumulate: int, max_length: int
    ) -> Workload:
        """Rows and steps of the documents at these sizes. Raises GraftlabError."""
        documents, watched = self.documents(spec), spec.callbacks.validation
        schedule = StepSettings(
            batch_size=batch_size,
            accumulate=accumulate,
            epochs=spec.epochs,
            max_steps=spec.max_steps,
            processes=spec.trainer.devices,
            validate_epochs=watched.every_epochs,
            validate_steps=watched.every_steps,
        )
        packing = replace(spec.packing, max_length=max_length)
        return self._once(
            ("workload", id(documents), packing.strategy, max_length, schedule),
            lambda: lay_out(documents, packing, schedule, valid_tokens=documents.valid_tokens),
        )

    def matrix_peak(self, precision: str) -> float:
        """FLOP/s of a large matrix product on this processor, measured."""
        import torch

        from graftlab.training.device import matrix_peak

        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        return self._once(("peak", dtype), lambda: matrix_peak(torch.device("cpu"), dtype))

    def _once(self, key: tuple[Any, ...], look_up: Callable[[], Found]) -> Found:
        if key not in self._kept:
            self._kept[key] = look_up()
        found: Found = self._kept[key]
        return found


def _key(*parts: Any) -> str:
    return json.dumps([dump(part) for part in parts], sort_keys=True, default=str)
