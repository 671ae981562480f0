"""Every key and every option on the command line, checked before anything is composed.

Hydra accepts `+lora.rnak=8` and answers `lora.rnak=8` with advice to write just that. Here both are
refused with the key that was probably meant, and all mistakes are told at once.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_origin

from graftlab.cli.overrides import Argument
from graftlab.cli.plugins import KEY
from graftlab.cli.schema import Schema, is_free
from graftlab.cli.secrets import is_secret, refuse_secrets
from graftlab.errors import ConfigError, did_you_mean
from graftlab.hints import named_specs, nested_spec
from graftlab.plugins import OWN_CLASS
from graftlab.registry import group_at, groups

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def check_arguments(words: Sequence[Argument], schema: Schema, *, multirun: bool) -> list[Argument]:
    """The words, ready for Hydra; raises ConfigError naming every one that cannot be."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    problems: list[str] = []
    ready: list[Argument] = []
    for word in words:
        if not word.key:
            problems.append(_not_a_pair(word.typed, schema))
            continue
        if not _known(word.key, schema):
            problems.append(unknown_key(word.key, schema))
            continue
        try:
            override = parser.parse_override(word.hydra)
        except HydraException:
            problems.append(
                f"`{word.typed}`: the value cannot be read. Put a text with special characters "
                f"into quotes of its own: {word.key}='\"...\"'."
            )
            continue
        problems.extend(_problems(word, override, schema, multirun))
        ready.append(_into_free(word, schema))
        if word.key.startswith("hydra.job.env_set.") and is_secret(word.key.rpartition(".")[2]):
            problems.append(
                f"`{word.key}`: Hydra writes this into .hydra/: set the variable before graftlab."
            )
    if not problems:  # Hydra keeps every word in .hydra/, its own keys included
        refuse_secrets({word.key: word.typed.partition("=")[2] for word in words})
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return ready


def unknown_key(key: str, schema: Schema) -> str:
    """What to say about a key that no choice of this verb has."""
    if key.partition(".")[0] == KEY:
        return f"`{key}`: modules are named as {KEY}=[one,two]."
    if key.startswith("hydra"):
        return f"`{key}` is not a key of Hydra's: `graftlab {schema.verb} --cfg hydra` shows them."
    parent, _, name = key.rpartition(".")
    if parent and (hint := schema.find(parent)) is not None and nested_spec(hint) is None:
        return f"`{key}`: {parent} holds a value and has no keys of its own."
    known = schema.dotted_keys()
    siblings = [*schema.under(parent), *(() if parent else (KEY,))]
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    namesakes = [other for other in known if other.rpartition(".")[2] == name]
    if close:
        hint_text = f" Did you mean `{f'{parent}.' if parent else ''}{close[0]}`?"
    elif namesakes:
        hint_text = f" Did you mean {' or '.join(f'`{other}`' for other in namesakes)}?"
    else:
        hint_text = _near_elsewhere(key, [*known, *schema.groups])
    if not hint_text:
        place = f"{parent} has" if siblings and parent else f"`graftlab {schema.verb}` has"
        hint_text = f" {place}: {', '.join(siblings or schema.under(''))}."
        hint_text += f" {OWN_CLASS}" if group_at(parent) in groups() else ""
    return f"`{key}` is not a key of graftlab {schema.verb}.{hint_text}"


def _near_elsewhere(key: str, known: Sequence[str]) -> str:
    """' Did you mean `x`?' for a key whose last name and whose node are both close.

    Compared whole, every short key of a node would be close to every other one of it.
    """
    parent, _, name = key.rpartition(".")
    close = [
        other
        for other in known
        if _alike(name, other.rpartition(".")[2]) and _alike(parent, other.rpartition(".")[0])
    ]
    return did_you_mean(key, close)


def _alike(one: str, other: str) -> bool:
    return one == other or difflib.SequenceMatcher(None, one, other).ratio() >= 0.6


def _known(key: str, schema: Schema) -> bool:
    hydra = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    known = key in schema.groups or key in schema.inner
    return hydra or known or schema.find(key) is not None


def _problems(word: Argument, override: Override, schema: Schema, multirun: bool) -> Iterator[str]:
    key = override.get_key_element().lstrip("+~")
    if key in schema.groups or key in schema.inner:
        yield from _group_problems(word, override, schema)
    elif override.is_hydra_override():
        return
    elif override.is_delete():
        yield f"`{word.typed}`: a key cannot be taken away; {key}=null may empty it."
    elif override.is_add() and not _inside_free(key, schema):
        yield f"`{word.typed}`: {key} is there already; write it without the +."
    elif _is_nested(override) and _takes_plain_lists(key, schema):
        yield (
            f"`{word.typed}`: {key} takes a plain list such as [a,b], and this one holds another. "
            "A name in brackets goes into quotes: ['[a]']."
        )
    elif key == "run_dir":
        yield (
            "`run_dir` follows Hydra's run folder: choose that with hydra.run.dir=DIR, "
            "or hydra.sweep.dir=DIR with -m."
        )
    if override.is_sweep_override() and not multirun:
        yield (
            f"`{word.typed}` holds several values: add -m to run one job for each, "
            "or write a list as [a,b]."
        )


def _group_problems(word: Argument, override: Override, schema: Schema) -> Iterator[str]:
    group = override.key_or_group
    options = schema.groups.get(group) or schema.inner[override.get_key_element().lstrip("+~")]
    named = ", ".join(options)
    if override.is_delete() or override.is_add() or override.is_force_add():
        yield f"`{word.typed}`: write {group}=OPTION with one of {named}."
        return
    for option in _options(override):
        if not isinstance(option, str):
            yield f"`{word.typed}`: {group} takes one of {named}."
        elif option not in options:
            elsewhere = [other for other, has in schema.groups.items() if option in has]
            hint = did_you_mean(option, options)
            if group == "model" and "/" in option:
                kind = ("gguf", "FILE.gguf") if option.endswith(".gguf") else ("hf", "DIR")
                hint = f" Name it so: model={kind[0]} model.path={kind[1]}."
            if elsewhere and not hint:
                hint = f" Did you mean `{elsewhere[0]}={option}`?"
            if group in groups() and not hint:
                hint = f" Options of your own lie in --config-dir DIR. {OWN_CLASS}"
            yield f"{group}={option} is not one of {named}.{hint}"


def _options(override: Override) -> Iterator[Any]:
    """The options an override of a group names: one, a list of them, or a sweep over either."""
    from hydra.core.override_parser.types import QuotedString

    for value in _written(override):
        for item in value if isinstance(value, list) else [value]:
            yield item.text if isinstance(item, QuotedString) else item


def _written(override: Override) -> Iterator[Any]:
    """The value of an override, or each that a sweep names; of a glob, none."""
    from hydra.core.override_parser.types import Glob

    if not isinstance(override._value, Glob):
        yield from override.sweep_iterator() if override.is_discrete_sweep() else [override._value]


def _is_nested(override: Override) -> bool:
    """Whether a value, or one of a sweep, is a list that holds lists or dictionaries."""
    return any(
        isinstance(item, list | dict)
        for value in _written(override)
        if isinstance(value, list)
        for item in value
    )


def _takes_plain_lists(key: str, schema: Schema) -> bool:
    """Whether nobody else would say that a list does not fit, or what it may hold."""
    parents = key.split(".")[:-1]
    hints = (schema.find(".".join(parents[: n + 1])) for n in range(len(parents)))
    if any(hint is not None and is_free(hint) and not named_specs(hint) for hint in hints):
        return False
    own = schema.find(key)
    return own == Any or get_origin(own) is list


def _inside_free(key: str, schema: Schema) -> bool:
    """Whether a key lies inside a dictionary that takes any key, such as optimizer.arguments."""
    parents = key.split(".")[:-1]
    return any(
        (hint := schema.find(".".join(parents[: n + 1]))) is not None and is_free(hint)
        for n in range(len(parents))
    )


def _into_free(word: Argument, schema: Schema) -> Argument:
    """Hydra wants a + for new keys of a free dictionary; people need not know."""
    if (merged := _into_named(word, schema)) is not None:
        return merged
    hint = schema.find(word.key)
    free = _inside_free(word.key, schema) or (hint is not None and is_free(hint))
    if free and not word.hydra.startswith("+"):
        return dataclasses.replace(word, hydra=f"++{word.hydra}")
    return word


def _into_named(word: Argument, schema: Schema) -> Argument | None:
    """A key below a name of the user's own, as in sources.mine.files=F: one value to merge.

    Set key by key, OmegaConf would first make the name a plain dictionary and refuse it.
    """
    parts = word.key.split(".")
    for depth in range(1, len(parts)):
        owner = ".".join(parts[:depth])
        if (hint := schema.find(owner)) is not None and named_specs(hint) is not None:
            value = word.hydra.partition("=")[2]
            for name in reversed(parts[depth:]):
                value = f"{{{name}: {value}}}"
            return dataclasses.replace(word, hydra=f"++{owner}={value}")
    return None


def _not_a_pair(typed: str, schema: Schema) -> str:
    """What to say about a word that is no key=value."""
    owners = [group for group, options in schema.groups.items() if typed in options]
    names = schema.under("")
    close = difflib.get_close_matches(typed, names, n=1, cutoff=0.6)
    if owners:
        hint = f" Did you mean `{owners[0]}={typed}`?"
    elif close:
        hint = f" Did you mean `{close[0]}=...`?"
    else:
        hint = ""
    return f"`{typed}` is not of the form key=value.{hint}"
