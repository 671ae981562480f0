"""A choice of `model` that needs what adapters know: a draft is made after a run."""

from graftlab.adapters import draft

__all__ = ["draft"]
