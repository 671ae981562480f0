"""Ollama's Modelfile: what it runs, how a conversation is written, and where an answer ends.

    FROM ./model.gguf
    TEMPLATE \"\"\"{{- range ... }}\"\"\"     Go's text/template, found by `turns`
    SYSTEM "You are brief."
    PARAMETER stop "<|im_end|>"         one line for each token that ends a turn
    LICENSE \"\"\"...\"\"\"

A value stands as it is between quotes: there is no escape for the quotes themselves, and Ollama
drops what is not printable without a word. Both are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from graftlab.errors import ConfigError, ModelError

FILE = "Modelfile"
QUOTES = '"""'
_LINE = re.compile(
    r'(FROM|ADAPTER|TEMPLATE|SYSTEM|LICENSE|PARAMETER \w+) (?:"""(.*?)"""|"([^"\n]*)"|([^"\n]*))\n',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What is written, in Ollama's words."""

    source: str
    """FROM: a file or folder beside it, or a model that Ollama has."""
    adapter: str | None = None
    template: str | None = None
    system: str | None = None
    parameters: Sequence[tuple[str, str]] = ()
    """(name, value); `stop` once for each text."""
    licenses: Sequence[str] = ()
    comments: Sequence[str] = field(default=(), compare=False)

    def text(self) -> str:
        """The file. Raises ConfigError naming every value that Ollama could not read back."""
        problems = [problem for name, value in self._commands() for problem in _faults(name, value)]
        if problems:
            raise ConfigError(" ".join(problems))
        lines = [f"# {line}".rstrip() for line in self.comments]
        return "\n".join([*lines, *(f"{name} {_quoted(v)}" for name, v in self._commands()), ""])

    def _commands(self) -> list[tuple[str, str]]:
        given = [("FROM", self.source), ("ADAPTER", self.adapter), ("TEMPLATE", self.template)]
        given += [("SYSTEM", self.system)]
        given += [(f"PARAMETER {name}", value) for name, value in self.parameters]
        given += [("LICENSE", text) for text in self.licenses]
        return [(name, value) for name, value in given if value is not None]

    @classmethod
    def read(cls, text: str) -> Modelfile:
        """What a file that `text` wrote holds. Raises ModelError for any other."""
        lines = text.splitlines(keepends=True)
        comments = lines[: _count_comments(lines)]
        rest, found = "".join(lines[len(comments) :]), []
        while rest:
            match = _LINE.match(rest)
            if match is None:
                raise ModelError(f"{FILE}: {rest.splitlines()[0]!r} is no line of ours.")
            found.append((match[1], next(part for part in match.groups()[1:] if part is not None)))
            rest = rest[match.end() :]
        single = dict(found)
        return cls(
            source=single.get("FROM", ""),
            adapter=single.get("ADAPTER"),
            template=single.get("TEMPLATE"),
            system=single.get("SYSTEM"),
            parameters=tuple(
                (name.removeprefix("PARAMETER "), value)
                for name, value in found
                if name.startswith("PARAMETER ")
            ),
            licenses=tuple(value for name, value in found if name == "LICENSE"),
            comments=tuple(line[2:].rstrip("\n") for line in comments),
        )


def _count_comments(lines: Sequence[str]) -> int:
    return next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _faults(name: str, value: str) -> list[str]:
    """Why Ollama would not read back a value."""
    found = []
    if QUOTES in value:
        found.append(f"{name} holds {QUOTES}, which a Modelfile cannot: write it otherwise.")
    if odd := sorted({sign for sign in value if not (sign.isprintable() or sign in "\n\t")}):
        signs = ", ".join(f"U+{ord(sign):04X}" for sign in odd)
        found.append(f"{name} holds {signs}, which Ollama would drop: write it without.")
    return found


def _quoted(value: str) -> str:
    plain = value and re.fullmatch(r"[\w./:-]+", value)
    quotes = QUOTES if '"' in value or "\n" in value else '"'
    return value if plain else f"{quotes}{value}{quotes}"
