"""A draft becomes a file: by our own hand, or by llama-quantize on the PATH where only that can.

The program takes a whole file in fp32, which lies beside its own for as long as it runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import which

from graftlab.errors import ModelError
from graftlab.exports.gguf import importance
from graftlab.exports.gguf.draft import NOT_KEPT, Draft
from graftlab.exports.gguf.kinds import QUANTS
from graftlab.exports.gguf.quantising import PROGRAM, made_here
from graftlab.exports.gguf.writing import Entry, write_gguf
from graftlab.exports.programs import running
from graftlab.models.gguf.file import read_gguf

WIDE = "wide.gguf"
STILL = 900.0
"""Seconds in which it must write something: one tensor of a large model on a slow machine."""


def write_draft(draft: Draft, file: Path) -> None:
    """Write a file. Raises ModelError where the program does not."""
    if made_here(draft.kinds):
        write_gguf(file, draft.metadata, draft.entries, draft.arrays())
        return
    wide = file.with_name(WIDE)
    told = {key: value for key, value in draft.metadata.items() if not key.startswith(NOT_KEPT)}
    told["general.file_type"] = QUANTS["f32"].number
    entries = {
        name: entry if name in draft.tables else Entry("F32", entry.shape)
        for name, entry in draft.entries.items()
    }
    plain = replace(draft, entries=entries)
    try:
        write_gguf(wide, told, entries, plain.arrays())
        _run(draft, file)
    finally:
        wide.unlink(missing_ok=True)


def _run(draft: Draft, file: Path) -> None:
    import torch

    program = which(PROGRAM)
    assert program is not None, "`require_quantiser` was asked"
    weighed = ["--imatrix", importance.FILE] if draft.importance else []
    kind, threads = draft.quant.upper(), str(torch.get_num_threads())
    words = [program, *weighed, WIDE, file.name, kind, threads]
    # In the folder itself, as the file says what its matrix was called.
    with running(words, file.parent) as made:
        code = made.code(lambda: _size(file), still=STILL)
        if code is None:
            made.end()
            why = f"nothing more was written for {STILL:g} s"
            raise ModelError(f"{PROGRAM} made no {kind} of it: {why} {made.told()}")
    if code or file.is_symlink() or not file.is_file():
        raise ModelError(f"{PROGRAM} made no {kind} of it {made.told()}")
    try:
        read_gguf(file)
    except ModelError as error:
        raise ModelError(f"{PROGRAM} made no {kind} of it: {error}") from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
