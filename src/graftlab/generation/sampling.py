"""How replies are drawn: greedy, or temperature with top-k, top-p and min-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftlab.errors import require_range

ROW = "row"
"""As a schema: the one that each prompt brings."""


@dataclass(kw_only=True, slots=True)
class Generation:
    """`generation=greedy|creative`."""

    max_new_tokens: int = 200
    """Longest reply in tokens."""
    temperature: float = 0.0
    """0 is greedy; 1 draws from the model's own distribution."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float | None = None
    """Draw from the smallest set with this probability mass (arXiv 1904.09751)."""
    min_p: float | None = None
    """Drop tokens below this share of the likeliest one's probability (arXiv 2407.01082)."""
    seed: int = 0
    """Seed of the draw; does not touch training."""
    schema: Any = None
    """What replies must be: a JSON schema (a file, or the JSON itself), or `row`: the schema of the
    `response_format` that each prompt brings, if it brings one. A file is read at once, so that a
    run's own record holds the schema."""

    def __post_init__(self) -> None:
        require_range("generation.max_new_tokens", self.max_new_tokens, least=1)
        require_range("generation.seed", self.seed, least=-(2**62), most=2**62)
        require_range("generation.temperature", self.temperature, least=0)
        require_range("generation.top_k", self.top_k, least=1)
        require_range("generation.top_p", self.top_p, above=0, most=1)
        require_range("generation.min_p", self.min_p, least=0, most=1)
        if self.schema is not None and self.schema != ROW:
            from graftlab.generation.schema import read_schema

            self.schema = read_schema(self.schema)
