"""Sizes of a base, for whoever estimates what a step costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What a step of the base costs, beside the weights of its layers."""

    hidden_size: int
    vocab_size: int
    attention_width: int
    """Width of all query heads together."""
