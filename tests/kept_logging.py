"""Logging as it was before a test: Hydra and Lightning set handlers of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIGHTNING = ("lightning.pytorch", "lightning.fabric")
"""Loggers that stop handing on what they are told, once they have a handler."""


@contextmanager
def kept_logging() -> Iterator[None]:
    """After the block the root logger has the handlers and level it had before."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
        for name in LIGHTNING:
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
