"""The verb `prepare`: from raw files to a data set with a reason for every row that left.

Run as:  graftlab prepare corpus=FILE out=DIR
         graftlab prepare recipe=systems-theologian corpus=FILE out=DIR
"""

from __future__ import annotations

from graftlab.recipes.prepare import Prepared, prepare
from graftlab.recipes.spec import PrepareSpec


def run(spec: PrepareSpec) -> Prepared:
    """Prepare with a progress display, and print what became of the rows.

    Raises ConfigError, DataError or RewriterError with the fix.
    """
    from graftlab.console import say
    from graftlab.recipes.summary import summary

    if (line := spec.advice()) is not None:
        say(line)
    made = prepare(spec, shown=True)
    summary(made)
    return made
