"""`callbacks=[default,early-stopping]`: an end where the validation loss no longer falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec, State, Step


@choice("early-stopping")
@dataclass(kw_only=True, slots=True)
class EarlyStopping(CallbackSpec):
    """Stop when the validation loss no longer falls."""

    waits_for_validation: ClassVar[bool] = True

    patience: int = 2
    """Validations without improvement before stopping."""
    min_delta: float = 0.0
    """Nats per token that count as an improvement."""

    def __post_init__(self) -> None:
        require_range("callbacks.early_stopping.patience", self.patience, least=1)
        require_range("callbacks.early_stopping.min_delta", self.min_delta, least=0)

    def after_step(self, step: Step, state: State) -> str | None:
        loss = step.row.get("valid_loss")
        if loss is None:
            return None
        if loss < state.get("best", float("inf")) - self.min_delta:
            state["best"], state["misses"] = loss, 0
        else:
            state["misses"] = state.get("misses", 0) + 1
        if state["misses"] < self.patience:
            return None
        return f"early stopping: no better validation loss in {state['misses']} validations"
