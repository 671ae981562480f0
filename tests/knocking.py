"""One call of `main`, and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass
class Knock:
    """What came out of one command."""

    code: int
    out: str
    err: str


def knock(capture: pytest.CaptureFixture[str], *arguments: str) -> Knock:
    from graftlab.cli.main import main

    capture.readouterr()
    code = main(arguments)
    seen = capture.readouterr()
    return Knock(code, seen.out, seen.err)
