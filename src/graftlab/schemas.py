"""Spec classes as OmegaConf takes them: a collection's choices as optional fields, and back.

OmegaConf knows a class by its fields, while what may stand in a collection (`registry.collection`)
is known only when all modules are imported. So a class is made that has them as fields, and the
spec that was built from it is given back as the class it stands for:

    Callbacks(progress, chosen)   ->   progress, early_stopping: EarlyStopping | None = None, ...
"""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from functools import cache, partial
from typing import Any

from graftlab.registry import CHOSEN, field_types, is_collection, members

CHECK = "__post_init__"
"""What a class makes of its values, and refuses; it runs on the class that the program knows."""
_OPENED: dict[type, type] = {}
"""Class that was made -> the one it stands for."""


def schema_of(cls: type) -> type:
    """`cls`, with a field for each choice of its collections, of those in its choices as well."""
    held = {
        name: hint
        for name, hint in field_types(cls).items()
        if isinstance(hint, type) and is_collection(hint)
    }
    if not held:
        return cls
    opened = {name: _opened(hint, tuple(members(hint).items())) for name, hint in held.items()}
    return _holder(cls, tuple(opened.items()))


def gathered(spec: Any) -> Any:
    """`spec`, built from `schema_of` its class, as the program knows it.

    Raises what the collections refuse.
    """
    whole = _OPENED.get(type(spec))
    if whole is None:
        return spec
    if is_collection(whole):
        return _closed(whole, spec)
    made: Any = object.__new__(whole)
    for field in dataclasses.fields(spec):
        setattr(made, field.name, gathered(getattr(spec, field.name)))
    if hasattr(whole, CHECK):
        getattr(made, CHECK)()
    return made


def _closed(cls: type, value: Any) -> Any:
    held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    given = {name: gathered(inner) for name, inner in held.items()}
    chosen = {key: given.pop(key) for key in members(cls) if key in given}
    return cls(**given, **{CHOSEN: {key: s for key, s in chosen.items() if s is not None}})


@cache
def _opened(cls: type, known: tuple[tuple[str, type], ...]) -> type:
    """The class that stands for a collection; what it holds unless told otherwise stays so."""
    usual = getattr(cls(), CHOSEN)
    fields: list[Any] = []
    for field in dataclasses.fields(cls):
        if field.name != CHOSEN:
            hint = field_types(cls)[field.name]
            fields.append((field.name, hint, _same(field)))
    for key, member in known:
        default: Any = dataclasses.field(default=None)
        if key in usual:
            default = dataclasses.field(default_factory=partial(deepcopy, usual[key]))
        fields.append((key, schema_of(member) | None, default))
    made = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True, slots=True)
    _OPENED[made] = cls
    return made


@cache
def _holder(cls: type, opened: tuple[tuple[str, type], ...]) -> type:
    fields = [(name, made, dataclasses.field(default_factory=made)) for name, made in opened]
    made = dataclasses.make_dataclass(
        cls.__name__,
        fields,
        bases=(cls,),
        namespace={"__module__": cls.__module__, "__doc__": cls.__doc__, CHECK: _unchecked},
        kw_only=True,
        slots=True,
    )
    _OPENED[made] = cls
    return made


def _unchecked(self: Any) -> None:
    """In place of what the class itself checks: `gathered` lets it do so."""


def _same(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return dataclasses.field(default=field.default)
    return dataclasses.field(default_factory=field.default_factory)
