"""The verb `evaluate`: replies of a base and its adapters scored and compared, with intervals.

Run as: graftlab evaluate adapters=[RUN1,RUN2] prompts=FILE metrics=[style,exact-match] out=DIR
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.evaluation.spec import EvaluateSpec

if TYPE_CHECKING:
    from graftlab.evaluation.results import Results


def run(spec: EvaluateSpec) -> Results:
    """Ask, score, compare, show and write; returns the results.

    Raises ConfigError, DataError or ModelError with the fix: files that are missing, prompts that a
    metric cannot judge, adapters of several bases, an endpoint that does not answer; all is written
    before a judge is said to have judged only some of it.
    """
    from graftlab.evaluation.folder import writing_results

    out = Path(spec.out).expanduser() if spec.out is not None else None
    with writing_results(out, blind=spec.generation.seed if spec.blind else None) as write:
        from graftlab.console import console, say
        from graftlab.evaluation.evaluate import evaluate
        from graftlab.evaluation.table import show

        found = evaluate(spec)
        show(found, console())
        for line in write(found):
            say(line)
        if found.unfinished is not None:
            raise ModelError(found.unfinished)
    return found
