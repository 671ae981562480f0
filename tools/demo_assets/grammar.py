"""A pen that writes text from templates, every choice drawn from one named stream.

    Pen("seed", 7).write("{they} [bought|sold] {a tool} in {month}.", they="she")

    [one|two|]      one of the options (an empty one may be drawn); options nest
    {name}          the fact of that name if given, else a word of the lexicon's list of that name
    {a name}        the same with the article it needs; {s name} its plural

Only `random.Random.random` is used, whose stream Python keeps the same between versions: the text
is a function of the seed alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from demo_assets.lexicon import WORDS

Item = TypeVar("Item")

# A parsed template: literal text, (modifier, slot name), or a list of options, each parsed.
Node = str | tuple[str, str] | list["Nodes"]
Nodes = tuple[Node, ...]

_TOKEN = re.compile(r"[\[\]|]|\{(?:(a|s) )?(\w+)\}|[^\[\]|{]+")
_SENTENCE_START = re.compile(r"(^|[.!?\n]\s*)([a-z])")
_SILENT_H = ("hour", "honest", "heir")
_SOUNDED_Y = ("uni", "use", "one", "euro", "ukulele")


class Pen:
    """A source of choices and sentences; equal keys give equal texts."""

    def __init__(self, *key: object) -> None:
        self._random = random.Random("/".join(map(str, key)))

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self._random.random() * len(items))]

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` distinct items, in drawn order."""
        assert count <= len(items), (count, len(items))
        rest = list(items)
        return [rest.pop(int(self._random.random() * len(rest))) for _ in range(count)]

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def write(self, template: str, **facts: object) -> str:
        """Fill in one template; sentences start with a capital letter."""
        parts: list[str] = []
        self._render(_parse(template), facts, parts)
        return capitalize("".join(parts))

    def phrase(self, template: str, **facts: object) -> str:
        """Fill in one template and leave its case alone: a part of a sentence."""
        parts: list[str] = []
        self._render(_parse(template), facts, parts)
        return "".join(parts)

    def _render(self, nodes: Nodes, facts: dict[str, object], parts: list[str]) -> None:
        for node in nodes:
            if isinstance(node, str):
                parts.append(node)
            elif isinstance(node, list):
                self._render(self.pick(node), facts, parts)
            else:
                modifier, name = node
                word = str(facts[name]) if name in facts else self.pick(WORDS[name])
                parts.append(_MODIFIERS[modifier](word))


def capitalize(text: str) -> str:
    """Give every sentence its capital letter."""
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def article(noun: str) -> str:
    """'a lamp', 'an hour': the noun with its indefinite article."""
    low = noun.lower()
    vowel = low.startswith(_SILENT_H) or (low[0] in "aeiou" and not low.startswith(_SOUNDED_Y))
    return f"an {noun}" if vowel else f"a {noun}"


def plural(noun: str) -> str:
    """The regular plural of a noun (the lexicon holds nouns that have one)."""
    if noun.endswith(("s", "x", "z", "ch", "sh", "ato")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("fe"):
        return noun[:-2] + "ves"
    if noun.endswith(("man", "lf")):
        return noun[:-2] + "en" if noun.endswith("man") else noun[:-1] + "ves"
    return noun + "s"


def listing(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *rest, last = items
    return f"{', '.join(rest)} and {last}" if rest else last


_MODIFIERS: dict[str, Callable[[str], str]] = {"": str, "a": article, "s": plural}


@cache
def _parse(template: str) -> Nodes:
    tokens = list(_TOKEN.finditer(template))
    assert "".join(token[0] for token in tokens) == template, template
    nodes, used = _sequence(tokens, 0, depth=0)
    assert used == len(tokens), template
    return nodes


def _sequence(tokens: list[re.Match[str]], at: int, *, depth: int) -> tuple[Nodes, int]:
    """Nodes from `at` up to the end, or inside brackets up to the next "|" or "]"."""
    nodes: list[Node] = []
    while at < len(tokens):
        token = tokens[at]
        if token[2]:
            nodes.append((token[1] or "", token[2]))
        elif token[0] == "[":
            options: list[Nodes] = []
            while tokens[at][0] != "]":
                option, at = _sequence(tokens, at + 1, depth=depth + 1)
                options.append(option)
            nodes.append(options)
        elif depth and token[0] in "|]":
            return tuple(nodes), at
        else:
            nodes.append(token[0])
        at += 1
    return tuple(nodes), at
