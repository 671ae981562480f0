"""The `budget` node: what a run may take at most, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.errors import require_range


@dataclass(kw_only=True, slots=True)
class Limits:
    """`budget.max_hours` and `budget.max_cost`: a launch that would pass them is refused."""

    max_hours: float | None = None
    """Most hours a run may be planned to take; null for no limit."""
    max_cost: float | None = None
    """Most US dollars a run may be planned to cost on `device`; null for no limit."""

    def __post_init__(self) -> None:
        require_range("budget.max_hours", self.max_hours, above=0)
        require_range("budget.max_cost", self.max_cost, above=0)

    @property
    def given(self) -> bool:
        """Whether there is anything to check."""
        return self.max_hours is not None or self.max_cost is not None

    def passed(self, *, hours: float, cost: float) -> list[str]:
        """The limits that these hours and dollars pass, in words; empty when within."""
        found = []
        if self.max_hours is not None and hours > self.max_hours:
            found.append(f"budget.max_hours={self.max_hours:g} would be passed: {hours:.2g} h")
        if self.max_cost is not None and cost > self.max_cost:
            found.append(f"budget.max_cost={self.max_cost:g} would be passed: {cost:.2f} USD")
        return found
