"""What evaluation adds to the groups of training; found by the registry, named by nobody there."""

from __future__ import annotations

from graftlab.evaluation.callback import Evaluate

__all__ = ["Evaluate"]
