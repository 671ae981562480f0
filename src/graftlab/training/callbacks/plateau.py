"""`callbacks=[default,plateau]`: an end where the smoothed training loss no longer falls."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec, State, Step


@choice("plateau")
@dataclass(kw_only=True, slots=True)
class Plateau(CallbackSpec):
    """Stop when the smoothed training loss no longer falls."""

    patience: int = 20
    """Optimizer steps without improvement before stopping."""
    min_delta: float = 0.002
    """Nats per token that count as an improvement."""
    min_steps: int = 50
    """Never stop before this step."""
    smoothing: float = 0.9
    """Weight of the past in the exponential average."""

    def __post_init__(self) -> None:
        require_range("callbacks.plateau.patience", self.patience, least=1)
        require_range("callbacks.plateau.min_delta", self.min_delta, least=0)
        require_range("callbacks.plateau.min_steps", self.min_steps, least=0)
        require_range("callbacks.plateau.smoothing", self.smoothing, least=0, most=0.9999)

    def after_step(self, step: Step, state: State) -> str | None:
        loss, past = step.loss, state.get("smooth")
        smooth = loss if past is None else self.smoothing * past + (1 - self.smoothing) * loss
        state["smooth"] = smooth
        if smooth < state.get("best", float("inf")) - self.min_delta:
            state["best"], state["best_step"] = smooth, step.number
        if step.number < self.min_steps or step.number - state.get("best_step", 0) < self.patience:
            return None
        return f"plateau: the training loss has not fallen for {self.patience} steps"
