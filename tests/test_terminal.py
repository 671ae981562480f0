"""Nothing that is shown can move the cursor, set the title or turn the text around."""

from __future__ import annotations

from graftlab.console import say
from graftlab.terminal import printable


def test_control_characters_are_shown_as_escapes():
    hostile = "\x1b]0;title\x07\x9b31mred\r\x08\u202egpj.exe\ud800"
    shown = printable(hostile)
    assert shown == r"\x1b]0;title\x07\x9b31mred\x0d\x08\u202egpj.exe\ud800"
    assert printable("two\nlines\tand tab, é 猫") == "two\nlines\tand tab, é 猫"
    assert printable("two\nlines", one_line=True) == r"two\nlines"


def test_what_is_said_is_printable(capsys):
    say("\x1b[2Jgone")
    assert capsys.readouterr().out == "\\x1b[2Jgone\n"
