"""Write docs/reference/: a page for each verb and for each group of keys.

Run as: make docs, or python docs/reference.py

Everything on the pages comes from the code: types, defaults and meanings from the spec classes and
the docstrings under their fields, options, values and notes from the YAML files in conf/. So the
pages hold nothing to be edited by hand, and a test compares them with what this script would write
(tests/docs/test_reference.py).
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from commented import CONF, Leaf, Option, read_option
from tables import NOT_SET, block, page, shown, table

# All that is asked of the package: the verbs with their specs, the choices, and how a spec is read.
from graftlab.cli.compose import VERBS
from graftlab.cli.help import FLAGS, field_docs, verb_summary
from graftlab.cli.schema import Schema, read_schema
from graftlab.hints import named_specs, nested_spec
from graftlab.registry import choices, choices_under, field_types

FOLDER = Path(__file__).parent / "reference"
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any value"}


@dataclass(kw_only=True, slots=True)
class Section:
    """The keys of one spec class, as rows of a table."""

    place: str
    """The dotted place under which they are set, with its dot; empty at the top."""
    about: str
    rows: list[tuple[str, ...]] = field(default_factory=list)


def sections_of(
    cls: type, start: str, values: dict[str, Leaf], *, skip: Iterable[str] = (), about: str = ""
) -> list[Section]:
    """The keys of a spec class below the dotted place `start`, then those of the specs in it.

    `values` are those of YAML, by dotted key; `skip` names fields that stand elsewhere.
    """
    docs, given = field_docs(cls), {f.name: f for f in fields(cls)}
    section = Section(place=start, about=about or first_line(cls))
    inner: list[Section] = []
    for name, hint in field_types(cls).items():
        place, spec, named = f"{start}{name}", nested_spec(hint), named_specs(hint)
        if name in skip or (spec and choices_under(spec)):
            continue
        if spec or named:
            below = f"{place}." if spec else f"{place}.NAME."
            inner += sections_of(spec or named, below, values, about=docs.get(name, ""))
            continue
        leaf = values.get(place)
        default = leaf.value if leaf else default_of(given[name])
        meaning = docs.get(name) or (leaf.note if leaf else "")
        section.rows.append((f"`{place}`", type_in_words(hint), shown(default), meaning))
    return inner if inner and not section.rows else [section, *inner]


def first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def default_of(spec_field: Any) -> Any:
    if spec_field.default is not MISSING:
        return spec_field.default
    factory: Callable[[], Any] | object = spec_field.default_factory
    return factory() if callable(factory) and factory is not MISSING else NOT_SET


def type_in_words(hint: Any) -> str:
    """A type as people say it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if float in parts and int in parts:
            parts.remove(int)
        words = [
            "a word" if part is str and len(parts) > 1 else type_in_words(part) for part in parts
        ]
        if len(parts) < len(typing.get_args(hint)) and type(None) in typing.get_args(hint):
            words.append("null")
        return " or ".join(words)
    if origin is list:
        return f"list of {type_in_words(typing.get_args(hint)[0])}"
    if origin is dict:
        return "keys of your own"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def key_tables(sections: list[Section], title: str, start: str = "") -> list[str]:
    """Tables of keys; each spec inside the one at `start` has a heading of its own."""
    lines = [title, ""]
    for section in sections:
        if section.place != start:
            lines += [f"### {section.place.removesuffix('.')}", "", section.about, ""]
        if section.rows:
            lines += table(("Key", "Type", "Default", "Meaning"), section.rows)
        else:
            lines += ["It has no keys.", ""]
    return lines


def verb_page(card: Schema) -> str:
    """Options and keys of one verb."""
    verb, file = card.verb, read_option(CONF / f"{card.verb}.yaml")
    lines = [f"# graftlab {verb}", "", verb_summary(verb), ""]
    lines += block(file.commands or [f"graftlab {verb} --help"])
    shared = next((v for v, spec in VERBS.items() if spec in card.spec.__mro__[1:]), None)
    if shared:
        lines += [f"It takes every group and every key of [{shared}]({shared}.md), and these:", ""]
    elif card.groups:
        lines += ["## Groups", "", "Chosen as `group=option`; each has a page with its keys."]
        rows = [
            (f"[`{group}`]({group}.md)", shown(card.defaults[group]), option_names(card, group),
             file.takes[group].note if group in file.takes else "")
            for group in card.groups
        ]  # fmt: skip
        lines += table(("Group", "Default", "Options", "What it chooses"), rows)
    inherited = set(field_types(VERBS[shared])) if shared else set()
    skip = inherited | (set(card.groups) - {"sweep"} if not shared else set()) | {"run_dir"}
    lines += key_tables(sections_of(card.spec, "", file.values, skip=skip), "## Keys")
    lines += ["## Flags", *table(("Flag", "Meaning"), [(f"`{f}`", m) for f, m in FLAGS.items()])]
    return page(lines)


def option_names(card: Schema, group: str) -> str:
    return ", ".join(f"`{name}`" for name in card.groups[group])


def group_page(group: str, cards: list[Schema]) -> str:
    """Options of one group, and the keys under it."""
    card, verbs = cards[0], ", ".join(f"[{c.verb}]({c.verb}.md)" for c in cards)
    files = {name: read_option(CONF / group / f"{name}.yaml") for name in card.groups[group]}
    verb_file = read_option(CONF / f"{card.verb}.yaml")
    note = verb_file.takes[group].note if group in verb_file.takes else ""
    chosen = card.defaults[group]
    lines = [f"# {group}", "", f"{note[:1].upper()}{note[1:]}. Taken by {verbs}.".lstrip(". "), ""]
    rows = [
        (f"`{group}={name}`" + (" (default)" if name == chosen else ""), file.about)
        for name, file in files.items()
    ]
    lines += ["## Options", *table(("Option", "What it is"), rows)]
    lines += block([command for file in files.values() for command in file.commands])
    prefix = prefix_of(group, files)
    own = {name: under(file, group, prefix) for name, file in files.items()}
    if choices_of(card, group):
        lines += choice_tables(group, prefix, files, own, chosen)
    elif (spec := nested_spec(card.find(group))) is not None:
        base = {f"{prefix}.{k.partition('.')[2]}": v for k, v in verb_file.values.items()
                if k.startswith(f"{prefix}.")}  # fmt: skip
        values = base | own.get(str(chosen), {})
        lines += key_tables(sections_of(spec, f"{prefix}.", values), "## Keys", f"{prefix}.")
        if any(file.package != "_global_" for file in files.values()):
            lines += differences(own, chosen, prefix)
    for name, file in files.items():
        beyond = {k: v for k, v in file.values.items() if not k.startswith(f"{group}.")}
        if file.package == "_global_" and (beyond or file.takes or group == "sweep"):
            lines += what_it_sets(group, name, file, beyond if group != "sweep" else file.values)
    return page(lines)


def choices_of(card: Schema, group: str) -> dict[str, type]:
    """The classes of which a group's node is one."""
    own = nested_spec(card.find(group))
    return choices_under(own) if own else {}


def prefix_of(group: str, files: dict[str, Option]) -> str:
    """Where the keys of a group belong."""
    packages = {file.package for file in files.values()} - {"", "_global_", "_here_"}
    return packages.pop() if packages else group


def under(file: Option, group: str, prefix: str) -> dict[str, Leaf]:
    """The values of a file that are keys of its group, by their whole names."""
    if file.package == "_global_":
        return {key: leaf for key, leaf in file.values.items() if key.startswith(f"{group}.")}
    return {f"{prefix}.{key}": leaf for key, leaf in file.values.items()}


def choice_tables(
    group: str, prefix: str, files: dict[str, Option], own: dict[str, dict[str, Leaf]], chosen: Any
) -> list[str]:
    """A table of keys for each class of a group that has several."""
    lines: list[str] = []
    classes = choices(group)
    for choice, cls in classes.items():
        options = [name for name, file in files.items() if (file.schema or name) == choice]
        if not options:
            continue
        first = chosen if chosen in options else (choice if choice in options else options[0])
        start = f"{prefix}."
        here = {first_name(key, start) for name in options for key in own[name]}
        elsewhere = {
            first_name(key, start) for name in own if name not in options for key in own[name]
        }
        unused = elsewhere - here  # a key of the shared class that only other options have
        title = "## Keys of " + ", ".join(f"`{group}={name}`" for name in options)
        lines += key_tables(sections_of(cls, start, own[first], skip=unused), title, start)
        lines += differences({name: own[name] for name in options}, first, prefix)
    return lines


def first_name(key: str, start: str) -> str:
    return key.removeprefix(start).partition(".")[0]


def differences(own: dict[str, dict[str, Leaf]], chosen: Any, prefix: str) -> list[str]:
    """What options set otherwise than the default one, as a table with a column for each key."""
    base = own.get(str(chosen), {})
    columns = [
        key
        for key in dict.fromkeys(key for values in own.values() for key in values)
        if any(
            key in v and (key not in base or v[key].value != base[key].value) for v in own.values()
        )
    ]
    columns = [key for key in columns if any(key in v and v[key].value for v in own.values())]
    rows = [
        (f"`{name}`", *(shown(v[key].value) if key in v else "" for key in columns))
        for name, v in own.items()
    ]
    if not columns or len(own) < 2:
        return []
    head = ("Option", *(f"`{key.removeprefix(prefix + '.')}`" for key in columns))
    return ["### What the options set", *table(head, rows)]


def what_it_sets(group: str, name: str, file: Option, values: dict[str, Leaf]) -> list[str]:
    """Every value of a file that reaches beyond its group, with the note beside it."""
    rows = [(f"`{key}`", shown(leaf.value), leaf.note) for key, leaf in file.takes.items()]
    rows += [(f"`{key}`", shown(leaf.value), leaf.note) for key, leaf in values.items()]
    return [f"## What {group}={name} sets", *table(("Key", "Value", "Note"), rows)]


def index_page(cards: dict[str, Schema], groups: dict[str, list[Schema]]) -> str:
    """The way into the reference."""
    lines = ["# Reference", "", "Every verb, every group of keys and every key, with its default."]
    lines += ["Groups take an option (`lora=dora`), keys a value (`lora.rank=32`). The same is in"]
    lines += ["`graftlab VERB --help` and `graftlab VERB --help GROUP`.", "", "## Verbs"]
    rows = [(f"[`{verb}`]({verb}.md)", verb_summary(verb)) for verb in cards]
    lines += table(("Verb", "What it does"), rows)
    lines += ["`graftlab toolkit` takes the flags of Apple's toolkit: [apple.md](../apple.md).", ""]
    lines += ["## Groups"]
    rows = []
    for group, taken_by in groups.items():
        note = read_option(CONF / f"{taken_by[0].verb}.yaml").takes[group].note
        verbs = ", ".join(f"`{card.verb}`" for card in taken_by)
        rows.append((f"[`{group}`]({group}.md)", note, verbs))
    lines += table(("Group", "What it chooses", "Verbs"), rows)
    return page(lines)


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    cards = {verb: read_schema(verb, [CONF]) for verb in VERBS}
    groups: dict[str, list[Schema]] = {}
    for card in cards.values():
        for group in card.groups:
            groups.setdefault(group, []).append(card)
    twice = set(cards) & set(groups)
    assert not twice, (
        f"a verb and a group are both called {twice}: one page would replace the other"
    )
    texts = {f"{verb}.md": verb_page(card) for verb, card in cards.items()}
    texts |= {f"{group}.md": group_page(group, taken_by) for group, taken_by in groups.items()}
    return texts | {"README.md": index_page(cards, groups)}


def main() -> None:
    texts = pages()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(texts)} pages in {FOLDER}")


if __name__ == "__main__":
    main()
