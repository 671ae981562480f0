"""`callbacks.repetition`: a warning, or an end, where sampled text degenerates ("Vac Vac Vac")."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.errors import require_range
from graftlab.registry import choice
from graftlab.training.callbacks.spec import CallbackSpec, Drawn, State


@choice("repetition")
@dataclass(kw_only=True, slots=True)
class RepetitionAlarm(CallbackSpec):
    """Warn, or stop, when sampled text degenerates ("Vac Vac Vac") and the base's does not."""

    threshold: float = 0.5
    """Share of 3-grams that repeat an earlier one above which text counts as degenerate, unless
    the base's own reply is above it too."""
    stop: bool = False
    """Stop the run instead of only warning."""

    def __post_init__(self) -> None:
        require_range("callbacks.repetition.threshold", self.threshold, above=0, most=1)

    def after_samples(self, drawn: Drawn, state: State) -> str | None:
        """Where the base's own reply to a prompt degenerates too, that is said once, and is no
        complaint.
        """
        loops = [pair for pair in drawn.repetition if pair[1] > self.threshold]
        learned = [(base, adapter) for base, adapter in loops if base <= self.threshold]
        if learned:
            base, adapter = max(learned, key=lambda pair: pair[1])
            complaint = (
                f"step {drawn.step}: {adapter:.0%} of a sampled reply repeats itself "
                f"(of the base's own reply: {base:.0%})"
            )
            drawn.warn(f"{complaint}. {_advice(drawn)}")
            return complaint if self.stop else None
        if loops and not state.get("told_of_base"):
            state["told_of_base"] = True
            drawn.warn(
                f"step {drawn.step}: {len(loops)} of {len(drawn.repetition)} sampled replies "
                "repeat themselves, and the base's own replies to the same prompts do too: no "
                "fault of the adapter."
            )
        return None


def _advice(drawn: Drawn) -> str:
    """What helps; plain bf16 adapters degenerate, other precisions have no part in it."""
    if drawn.step < drawn.per_epoch:
        return "Before the first epoch has ended that may pass with training; else lower lr."
    if drawn.precision == "bf16":
        return "Lower lr, train for fewer epochs, or use precision=bf16-mixed."
    return "Lower lr, or train for fewer epochs."
