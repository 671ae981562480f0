"""What can be said to a verb: its groups and their options, and every key with its type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from graftlab.cli.compose import VERBS
from graftlab.cli.overrides import INSIDE, OWNERS
from graftlab.files.reading import read_yaml
from graftlab.hints import named_specs, nested_spec
from graftlab.registry import choices_under, field_types, place_of


@dataclass(frozen=True, slots=True)
class Schema:
    """The groups of `conf/<verb>.yaml` and the keys of its spec."""

    verb: str
    spec: type
    groups: dict[str, list[str]]
    """Group -> options, in the order of `defaults`."""
    defaults: dict[str, str | None]
    """Group -> the option taken when none is named."""
    inner: dict[str, list[str]]
    """Groups whose options stand inside one of another group's, as `metrics@callbacks.evaluate...`
    -> options."""
    values: dict[str, Any]
    """The top-level values of `conf/<verb>.yaml`."""

    def dotted_keys(self) -> list[str]:
        """Every dotted key, those of all choices together."""
        return list(dict.fromkeys(_walk(self.spec, "")))

    def find(self, key: str) -> Any | None:
        """The type of a dotted key in any choice (`Any` inside a free dictionary), or None.

        A group stands for the key at which its choices are.
        """
        owners: list[Any] = [self.spec]
        hint: Any = None
        for name in place_of(key).split("."):
            if hint is not None and (named := named_specs(hint)) is not None:
                hint, owners = named, [named]
                continue
            if hint is not None and is_free(hint):
                return Any
            hints = [hint for cls in owners if (hint := field_types(cls).get(name)) is not None]
            if not hints:
                return None
            hint = hints[0]
            nested = nested_spec(hint)
            owners = _classes(nested) if nested else []
        return hint

    def under(self, parent: str) -> list[str]:
        """The names directly under a dotted key ('' for the top level, groups included)."""
        if not parent:
            return list(dict.fromkeys([*field_types(self.spec), *self.groups]))
        hint = self.find(parent)
        own = nested_spec(hint) if hint is not None else None
        classes = _classes(own) if own is not None else []
        return list(dict.fromkeys(key for cls in classes for key in field_types(cls)))


def read_schema(verb: str, folders: Sequence[Path]) -> Schema:
    """The menu of a verb, from `conf/` and folders with further options; needs no Hydra."""
    defaults, values = _content(folders[0], verb)

    def options(group: str) -> list[str]:
        return sorted({f.stem for conf in folders for f in (conf / group).glob("[!_]*.yaml")})

    groups = {group: options(group) for group in defaults}
    inner = {f"{group}@{place}": options(group) for group, place in INSIDE.items()}
    if verb in OWNERS or "callbacks" not in groups:
        inner = {}
    return Schema(verb, VERBS[verb], groups, defaults, inner, values)


def _content(conf: Path, name: str) -> tuple[dict[str, str | None], dict[str, Any]]:
    """The groups with their defaults, and the values, of a file and of those it inherits from."""
    content = read_yaml(conf / f"{name}.yaml")
    groups: dict[str, str | None] = {}
    values: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, dict):
            groups |= {g: o for g, o in entry.items() if not g.startswith("override ")}
        elif entry != "_self_" and not entry.startswith("schema/"):
            more, inherited = _content(conf, entry)
            groups, values = groups | more, values | inherited
    content.pop("hydra", None)
    return groups, values | content


def is_free(hint: Any) -> bool:
    """Whether a type is a dictionary that takes any key."""
    return get_origin(hint) is dict


def _walk(cls: type, start: str) -> Iterator[str]:
    for owner in _classes(cls):
        for name, hint in field_types(owner).items():
            yield start + name
            nested = nested_spec(hint)
            if nested is not None:
                yield from _walk(nested, f"{start}{name}.")


def _classes(cls: type) -> list[type]:
    return list(choices_under(cls).values()) or [cls]
