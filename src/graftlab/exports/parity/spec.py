"""How an export is compared with training before it is kept: keys, and what a target allows."""

from __future__ import annotations

from dataclasses import dataclass

from graftlab.errors import require_range

LEAST = 0.98


@dataclass(kw_only=True, slots=True)
class Parity:
    """`parity.rows`, `parity.tokens`, `parity.least` of the verb `export`."""

    rows: int = 8
    """Held-out conversations that the export is asked; 0 leaves the comparison out."""
    tokens: int = 32
    """Tokens of each answer that are compared, and of each greedy reply."""
    least: float | None = None
    """Share of the adapter's gain that the export must have, or it is not kept; null takes what is
    usual for the target."""

    def check(self) -> None:
        """Raise ConfigError for a value that cannot be."""
        require_range("parity.rows", self.rows, least=0, most=1000)
        require_range("parity.tokens", self.tokens, least=1, most=1024)
        require_range("parity.least", self.least, least=0, most=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an export may lose."""

    least: float = LEAST
    """Share of the adapter's gain that it must have."""
    kl: float = 1e-2
    """Mean KL(trained || export), in nats, that rounding explains."""
    reason: str = "rounding"
    """What makes it so much, for people."""
