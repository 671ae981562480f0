"""`callbacks=[default,early-stopping]`: an end where what `checkpoint.by` names gets no better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec, State, Step


@choice("early-stopping")
@dataclass(kw_only=True, slots=True)
class EarlyStopping(CallbackSpec):
    """Stop when the validation loss, or what else `checkpoint.by` names, gets no better."""

    waits_for_validation: ClassVar[bool] = True

    patience: int = 2
    """Validations (or evaluations) without improvement before stopping."""
    min_delta: float = 0.0
    """How much counts as an improvement: nats per token, or in what `checkpoint.by` measures."""

    def __post_init__(self) -> None:
        require_range("callbacks.early_stopping.patience", self.patience, least=1)
        require_range("callbacks.early_stopping.min_delta", self.min_delta, least=0)

    def after_step(self, step: Step, state: State) -> str | None:
        value = step.row.get(step.ranking.column)
        if value is None:
            return None
        found = step.ranking.key(value)
        if found < state.get("best", float("inf")) - self.min_delta:
            state["best"], state["misses"] = found, 0
        else:
            state["misses"] = state.get("misses", 0) + 1
        if state["misses"] < self.patience:
            return None
        times = f"{state['misses']} {'validations' if step.ranking.is_loss else 'evaluations'}"
        return f"early stopping: no better {step.ranking.name} in {times}"
