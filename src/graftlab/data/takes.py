"""What an objective learns from, and whether the data is that: answers, pairs or labels."""

from __future__ import annotations

from collections.abc import Iterable

from graftlab.errors import DataError, Problem
from graftlab.types import Conversation

KINDS = {
    "answers": "answers alone",
    "pairs": "pairs of a chosen and a rejected answer",
    "labels": "answers with a label, good or not",
}
"""Kind of a conversation -> what it is, in words."""

_INSTEAD = {
    "answers": "objective=sft trains on answers",
    "pairs": "objective=dpo learns from pairs; objective=sft data.preference=chosen trains on the "
    "chosen answers",
    "labels": "objective=kto learns from labels; objective=sft data.preference=chosen trains on "
    "the good answers",
}


def require_kinds(
    train: Iterable[Conversation], valid: Iterable[Conversation], *, takes: str, objective: str
) -> None:
    """`require_kind` of both sets; those that are trained need labels of either kind."""
    require_kind(train, takes=takes, objective=objective, both=True)
    require_kind(valid, takes=takes, objective=objective)


def require_kind(
    conversations: Iterable[Conversation], *, takes: str, objective: str, both: bool = False
) -> None:
    """Raise DataError, with file and line of the others, unless the objective takes all rows.

    `both` asks for labels of either kind.
    """
    rows = list(conversations)
    wrong = [row for row in rows if row.kind != takes]
    if wrong:
        kinds = dict.fromkeys(row.kind for row in wrong)
        raise DataError(
            f"{'; '.join(_INSTEAD[kind] for kind in kinds)}. objective={objective} learns from "
            f"{KINDS[takes]}, and {len(wrong)} of {len(rows)} rows are others:",
            [Problem(row.where, KINDS[row.kind]) for row in wrong],
        )
    found = {row.desirable for row in rows}
    if both and takes == "labels" and len(found) == 1:
        label = "true" if found.pop() else "false"
        raise DataError(
            f"objective={objective} learns from good and bad answers, and all {len(rows)} rows "
            f"that are trained on have the label {label}, such as {rows[0].where}: give rows of "
            "both, or objective=sft data.preference=chosen for the good ones alone."
        )
