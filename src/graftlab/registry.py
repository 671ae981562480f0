"""Choices by class, and specs as plain dictionaries.

A group is a base class and the classes that can be chosen in its place:

    @group("objective")                        # graftlab/objectives/base.py
    @dataclass(kw_only=True, slots=True)
    class Objective(ABC): ...

    @choice("distill")                         # graftlab/objectives/distill.py
    @dataclass(kw_only=True, slots=True)
    class Distill(Objective): ...

The choice `distill` of a group whose base lies in `graftlab.objectives` is looked for in the module
`graftlab.objectives.distill` when it is first asked for; the options of `conf/objective/` say which
choices there are. A folder of graftlab with a `plugin.py` registers choices of groups whose base
lies elsewhere, by importing them there, and so do modules of the user's own
(`graftlab/plugins.py`).

Where several choices may stand side by side, a collection holds them, each under its own key beside
those that it has anyway:

    @collection("callbacks")                   # callbacks: {progress: true, plateau: {patience: 9}}
    @dataclass(kw_only=True, slots=True)
    class Callbacks:
        progress: bool = True
        chosen: dict[str, CallbackSpec] = field(default_factory=dict)

`dump` and `restore` carry a spec to `run.yaml` and back; a node whose class is a choice names it:

    dump(HFModel(path="qwen"))  ->  {"choice": "hf", "path": "qwen", ...}
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from graftlab.errors import ConfigError, did_you_mean, require_finite
from graftlab.files.paths import conf_dir
from graftlab.hints import fits, named_specs, nested_spec
from graftlab.plugins import CHOICE, OWN_CLASS, group_of, load_inherited, types_of

MARK = "choice"
"""The key of a dumped node that names its choice."""
Spec = TypeVar("Spec")
Class = TypeVar("Class", bound=type)


@dataclasses.dataclass(slots=True)
class Group:
    """A group of choices."""

    name: str
    base: type
    """The class that they share, as spec fields declare it."""
    package: str
    """Where they are looked for."""
    place: str
    """The dotted key under which they stand in a verb's configuration."""
    classes: dict[str, type] = dataclasses.field(default_factory=dict)
    """Those imported so far, by name."""


CHOSEN = "chosen"
"""The field of a collection that holds what was chosen, key -> spec."""

_GROUPS: dict[str, Group] = {}
_COLLECTIONS: dict[type, str] = {}
_NAMES: dict[type, str] = {}


def group(name: str, *, place: str | None = None) -> Callable[[Class], Class]:
    """Decorator of a base class: its subclasses are choices of the group `name`.

    They stand under the key of that name, or else at `place`, inside a choice of another group;
    the option files say so as well: `# @package PLACE`.
    """

    def mark(cls: Class) -> Class:
        _GROUPS[name] = Group(name, cls, cls.__module__.rpartition(".")[0], place or name)
        return cls

    return mark


def choice(name: str) -> Callable[[Class], Class]:
    """Decorator of a class: it is the choice `name` of the group whose base it inherits.

    Raises ConfigError where another class has that name already, and for a class that cannot be.
    """

    def mark(cls: Class) -> Class:
        own = _GROUPS[group_of(cls, name, groups(), mark=MARK)]
        if not cls.__module__.startswith(f"{__package__}."):
            _load_own(own)  # all names that are taken
        other = own.classes.setdefault(name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"{cls.__module__}.{cls.__qualname__}: {own.name}={name} is "
                f"{other.__module__}.{other.__qualname__} already. Take another name."
            )
        own.classes[name] = cls
        _NAMES[cls] = name
        return cls

    return mark


def collection(group: str) -> Callable[[Class], Class]:
    """Decorator of a class with a field `chosen`: its further keys are the choices of `group`."""

    def mark(cls: Class) -> Class:
        _COLLECTIONS[cls] = group
        return cls

    return mark


def is_collection(cls: type) -> bool:
    """Whether exactly this class holds choices side by side."""
    return cls in _COLLECTIONS


def members(cls: type) -> dict[str, type]:
    """Key -> class of what may stand in a collection: `early-stopping` has `early_stopping`."""
    found = choices(_COLLECTIONS[cls]) if cls in _COLLECTIONS else {}
    return {name.replace("-", "_"): member for name, member in found.items()}


def groups() -> dict[str, type]:
    """Group -> its base class, of all that are imported."""
    return {name: _GROUPS[name].base for name in sorted(_GROUPS)}


def place_of(group: str) -> str:
    """The dotted key under which the choices of a group stand."""
    return _GROUPS[group].place if group in _GROUPS else group


def group_at(place: str) -> str:
    """The group whose choices stand under a dotted key; the key itself where it is of none."""
    return next((own.name for own in _GROUPS.values() if own.place == place), place)


def choices(group: str) -> dict[str, type]:
    """Choice -> class of a group, all of them, sorted; nothing where there is no such group."""
    if group not in _GROUPS:
        return {}
    _load_own(_GROUPS[group])
    load_rooms()
    return dict(sorted(_GROUPS[group].classes.items()))


def choices_under(base: type) -> dict[str, type]:
    """The choices of the group that shares `base`, or nothing when it is not such a base."""
    name = next((own.name for own in _GROUPS.values() if own.base is base), "")
    return choices(name)


def choice_of(cls: type) -> str | None:
    """The name under which exactly this class can be chosen, or None."""
    return _NAMES.get(cls)


def name_of(chosen: Any) -> str:
    """The name under which this object's class can be chosen, or else that of the class."""
    return choice_of(type(chosen)) or type(chosen).__name__


def _load_own(own: Group) -> None:
    """Import all of graftlab's choices of a group."""
    for file in (conf_dir() / own.name).glob("*.yaml"):
        _look_for(own, file.stem)
    _load_own_rooms()


def _look_for(own: Group, name: str) -> None:
    """Import the module in which a choice of that name would be."""
    if name in own.classes or not CHOICE.fullmatch(name):
        return
    module = f"{own.package}.{name.replace('-', '_')}"
    if find_spec(module) is not None:
        importlib.import_module(module)


@cache
def load_rooms() -> None:
    """Import what folders add to groups and tables of others: ours, and the user's in a worker."""
    _load_own_rooms()
    load_inherited()


@cache
def _load_own_rooms() -> None:
    for file in sorted(Path(__file__).parent.glob("*/plugin.py")):
        importlib.import_module(f"{__package__}.{file.parent.name}.plugin")


def dump(spec: Any) -> Any:
    """`spec` as plain dictionaries, lists and scalars, in field order; `restore` reads it back."""
    if isinstance(spec, Mapping):
        return {str(key): dump(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [dump(item) for item in spec]
    if not dataclasses.is_dataclass(spec):
        return spec
    mark = {MARK: name} if (name := choice_of(type(spec))) else {}
    values = {f.name: dump(getattr(spec, f.name)) for f in dataclasses.fields(spec)}
    if is_collection(type(spec)):
        for key, value in sorted(values.pop(CHOSEN).items()):
            values[key] = {k: v for k, v in value.items() if k != MARK}
    return mark | values


def restore(cls: type[Spec], data: Mapping[str, Any], *, path: str = "") -> Spec:
    """The spec that `dump` wrote; keys left out take their defaults.

    `path` is the dotted place of `data` in its file, for messages. Raises ConfigError for an
    unknown key or choice, and whatever the class itself refuses.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path or cls.__name__} must hold keys, not {data!r}.")
    values = dict(data)
    target = _chosen(cls, values, path)
    hints = field_types(target)
    unknown = [name for name in values if name not in hints]
    if unknown:
        where = f"{path}." if path else ""
        hint = did_you_mean(unknown[0], hints)
        own = f" {OWN_CLASS}" if is_collection(target) else ""
        raise ConfigError(f"`{where}{unknown[0]}` is not a key of {target.__name__}.{hint}{own}")
    for name, value in values.items():
        nested, named = nested_spec(hints[name]), named_specs(hints[name])
        place = f"{path}.{name}" if path else name
        if nested is not None and value is not None:
            values[name] = restore(nested, value, path=place)
        elif named is not None and isinstance(value, Mapping):
            values[name] = {k: restore(named, v, path=f"{place}.{k}") for k, v in value.items()}
        if not fits(values[name], hints[name]):
            raise ConfigError(f"`{place}` cannot be {value!r}.")
    if is_collection(target):
        given = {key: values.pop(key) for key in members(target) if key in values}
        values[CHOSEN] = {key: value for key, value in given.items() if value is not None}
    try:
        spec: Spec = target(**values)
        require_finite(spec, path)
        return spec
    except TypeError as error:
        raise ConfigError(f"{path or target.__name__}: {error}") from error


def field_types(cls: type) -> dict[str, Any]:
    """Key -> resolved type of a spec class, in field order; a collection's choices may be None."""
    own = _declared(cls)
    if not is_collection(cls):
        return own
    others = {key: member | None for key, member in members(cls).items()}
    return {name: hint for name, hint in own.items() if name != CHOSEN} | others


@cache
def _declared(cls: type) -> dict[str, Any]:
    hints = types_of(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _chosen(cls: type, values: dict[str, Any], path: str) -> type:
    """Take the mark out of `values` and return the class it names."""
    own = next((own for own in _GROUPS.values() if own.base is cls), None)
    if own is None:
        return cls
    name = str(values.pop(MARK, None))
    _look_for(own, name)
    if name not in own.classes:
        load_rooms()
    if name not in own.classes:
        known = choices(own.name)
        where = path or cls.__name__
        raise ConfigError(
            f"{where}.{MARK}={name} is not one of {', '.join(known)}.{did_you_mean(name, known)}"
            f" {OWN_CLASS}"
        )
    return own.classes[name]
