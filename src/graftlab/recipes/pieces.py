"""Pieces: parts of a record that a step drops while the record itself goes on."""

from __future__ import annotations

from dataclasses import replace

from graftlab.recipes.record import Record

PIECE = "piece"
"""The label of a dropped part; its value is the line within the text, or the part's name."""


def piece_of(parent: Record, text: str, *, line: int) -> Record:
    """A stripped part of a text, as a record derived from it (same origin, label `piece`)."""
    return replace(
        parent, kind="text", body={"text": text}, labels={**parent.labels, PIECE: str(line)}
    )


def is_piece(record: Record) -> bool:
    """Whether a dropped record is only a part of one that may have gone on."""
    return PIECE in record.labels
