"""What may be written to a terminal: text of others without its control characters."""

from __future__ import annotations

import re
import sys
import traceback

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""C0 but tab and line feed, DEL, C1, marks that turn the direction of text, lone surrogates."""


def printable(text: object, *, one_line: bool = False) -> str:
    r"""`text` with each control character as its escape, such as \x1b; `one_line` does \n, too.

    Terminals obey sequences that begin with ESC or a C1 character: they move the cursor, set the
    title, write to the clipboard.
    """
    safe = _CONTROL.sub(_escaped, str(text))
    return safe.replace("\n", "\\n") if one_line else safe


def tell_traceback(error: BaseException) -> None:
    """An error of ours on standard error, its trace as Python prints it."""
    print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
