"""`--help`: the choices of a verb, and its keys with the docstrings of its spec."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

from graftlab import __version__
from graftlab.cli.compose import VERBS
from graftlab.cli.overrides import LISTS, POSITIONAL
from graftlab.cli.plugins import KEY, MEANING
from graftlab.cli.schema import Schema
from graftlab.columns import table
from graftlab.commands import commands
from graftlab.hints import named_specs, nested_spec
from graftlab.registry import choices_under, field_types

FLAGS = {
    "-m, --multirun": "run one job for every value of keys given several, as in lr=1e-4,1e-3",
    "-c, --cfg job": "show the configuration instead of running it (--resolve fills in references)",
    "-cd, --config-dir DIR": "a folder of your own options, laid out like conf/",
    "-sc install=bash": "shell completion: eval the printed line (zsh and fish too)",
    "-h, --help [GROUP]": "this text, or the keys of one group",
    "--version": "the version of graftlab",
}


def overview() -> str:
    """What `graftlab --help` says: the verbs."""
    lines = [f"graftlab {__version__}: LoRA adapters on a frozen language model.", ""]
    lines += ["Usage: graftlab VERB [group=option ...] [key=value ...] [flags]", "", "Verbs"]
    rows = {verb: verb_summary(verb) for verb in VERBS}
    lines += table(rows | {name: command.summary for name, command in commands().items()})
    return "\n".join([*lines, "", "More: graftlab VERB --help"])


def verb_help(schema: Schema, call: str) -> str:
    """What `graftlab VERB --help` says: usage, choices, keys, flags."""
    lines = [f"{call}: {verb_summary(schema.verb)}", ""]
    lines += [f"Usage: {call} {_usage(schema)}[key=value ...] [flags]"]
    if schema.groups:
        lines += ["", "Choices, as group=option (* is the default)"]
        lines += table({group: _options(schema, group) for group in schema.groups})
    lines += ["", "Keys, as key=value"]
    plain = {name for name in field_types(schema.spec) if name not in schema.groups}
    docs = field_docs(schema.spec)
    rows = {}
    for name in field_types(schema.spec):
        if name in plain and name != "run_dir":
            default = schema.values.get(name)
            shown = f"{name}=..." if isinstance(default, dict) else f"{name}={_plain(default)}"
            rows[shown] = docs.get(name) or f"keys of its own: {call} --help {name}"
    lines += table(rows | {f"{KEY}=[]": MEANING})
    example = next((name for name in ("lora", "model", "mix") if name in schema.groups), None)
    if example is not None:
        lines += ["", f"Keys of a group, as group.key=value: {call} --help {example}"]
    return "\n".join([*lines, "", "Flags", *table(FLAGS)])


def _usage(schema: Schema) -> str:
    """What may stand before the keys: a plain word, and groups where there are any."""
    key = POSITIONAL.get(schema.verb, "")
    several = " ..." if key in LISTS else ""
    plain = f"[{key.removesuffix('s').upper()}{several}] " if key else ""
    return plain + ("[group=option ...] " if schema.groups else "")


def group_help(schema: Schema, group: str, call: str) -> str:
    """What `graftlab VERB --help GROUP` says: the options of a group and the keys under it."""
    lines = []
    if group in schema.groups:
        lines += [f"{call} {group}=OPTION: {_options(schema, group)}"]
    hint = schema.find(group)
    if hint is not None and (named := named_specs(hint)) is not None:
        return "\n".join([f"Keys of each of {group}", *table(_rows(named, f"{group}.NAME."))])
    nested = nested_spec(hint) if hint is not None else None
    if nested is None:
        return "\n".join(lines)
    classes = choices_under(nested) or {"": nested}
    for option, cls in classes.items():
        title = f"Keys with {group}={option}" if option else "Keys"
        lines += ["", title, *table(_rows(cls, f"{group}.") or {"(none)": ""})]
    return "\n".join(lines).lstrip("\n")


def verb_summary(verb: str) -> str:
    """The first line of the task module's docstring, without 'The verb ...:'."""
    doc = inspect.getdoc(importlib.import_module(f"graftlab.verbs.{verb}")) or ""
    text = doc.splitlines()[0].partition(": ")[2] or doc.splitlines()[0]
    return text[:1].upper() + text[1:]


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, read from the source; inherited fields included."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        source = inspect.getsourcefile(owner)
        if source is None:
            continue
        for node in _module(source).body:
            if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
                docs |= _docs_in(node)
    return docs


@cache
def _module(source: str) -> ast.Module:
    return ast.parse(Path(source).read_text(encoding="utf-8"))


def _docs_in(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs


def _rows(cls: type, start: str) -> dict[str, str]:
    rows: dict[str, str] = {}
    docs = field_docs(cls)
    for name, hint in field_types(cls).items():
        nested = nested_spec(hint)
        if nested is not None:
            rows |= _rows(nested, f"{start}{name}.")
        else:
            rows[f"{start}{name}"] = docs.get(name, "")
    return rows


def _options(schema: Schema, group: str) -> str:
    chosen = schema.defaults[group]
    return "  ".join(o + ("*" if o == chosen else "") for o in schema.groups[group])


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
