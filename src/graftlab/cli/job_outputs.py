"""Jobs of a sweep whose results would lie in one place: each gets a folder or file of its own.

graftlab prepare -m out=made seed=1,2 dedupe=default,none
    ->  made/seed=1,dedupe=default   made/seed=1,dedupe=none   made/seed=2,...
graftlab sample -m out=said.jsonl scale=0.5,1 ...
    ->  said-scale=0.5.jsonl   said-scale=1.jsonl
graftlab evaluate -m out=judged scale=0.5,1 ...
    ->  judged-scale=0.5       judged-scale=1
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graftlab.data.prepared import MANIFEST
from graftlab.errors import ConfigError
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.recipes.spec import PrepareSpec
from graftlab.verbs.sample import SampleSpec

_LONGEST = 100
_ODD = re.compile(r"[^\w.,=@%-]+")


def place_job(spec: Any, own: Sequence[str]) -> None:
    """Let a job of `prepare` write below `out`, one of `sample` or `evaluate` beside it; `own` are
    its overrides that the sweep varies.

    Raises ConfigError where `out` is a data set itself, whose next version would take the jobs'
    place.
    """
    if not isinstance(spec, PrepareSpec | SampleSpec | EvaluateSpec) or not spec.out or not own:
        return
    out = Path(spec.out).expanduser()
    if isinstance(spec, SampleSpec):
        spec.out = str(out.with_name(f"{out.stem}-{folder_name(own)}{out.suffix}"))
        return
    if isinstance(spec, EvaluateSpec):
        spec.out = str(out.with_name(f"{out.name}-{folder_name(own)}"))
        return
    if (out / MANIFEST).exists():
        raise ConfigError(
            f"out={spec.out} is a data set itself, and a sweep (-m) makes a folder for each of its "
            "jobs in there: give another out."
        )
    spec.out = str(out / folder_name(own))


def folder_name(own: Sequence[str]) -> str:
    """The overrides as a part of a name; what no name can say is told apart by a hash."""
    said = ",".join(override.lstrip("+") for override in own)
    name = _ODD.sub("-", said)[:_LONGEST]
    if name == said:
        return name
    return f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
