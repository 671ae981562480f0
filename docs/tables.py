"""Markdown for the reference: values as they are typed, tables, blocks of commands, whole pages."""

from __future__ import annotations

from typing import Any

NOT_SET = object()
"""The default of a key that has none."""
NOTE = "<!-- made by docs/reference.py from src/ and conf/: run `make docs`, do not edit -->"


def shown(value: Any) -> str:
    """A value as it is typed."""
    if value is NOT_SET:
        return ""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(shown(item).strip("`") for item in value) + "]`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{k}: {shown(v).strip('`')}" for k, v in value.items()) + "}`"
    return f"`{value}`" if str(value) else '`""`'


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [row_of(head), "|" + "---|" * len(head)]
    return ["", *lines, *(row_of(row) for row in rows), ""]


def row_of(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def block(commands: list[str]) -> list[str]:
    return ["```bash", *commands, "```", ""] if commands else []


def page(lines: list[str]) -> str:
    """One text with single empty lines between its parts."""
    text = "\n".join([NOTE, "", *lines])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip() + "\n"
