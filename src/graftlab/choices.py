"""The one table of choices that come as different classes, and specs as plain dictionaries.

Adding an objective (or a data source, an optimizer) means one file with its dataclass, one line
here, one YAML file in `conf/` and one test; a base has its line in `models/kinds.py`. `dump` and
`restore` carry a spec to `run.yaml` and back; a node whose class is a choice names it as `choice`:

    dump(HFModel(path="qwen"))  ->  {"choice": "hf", "path": "qwen", ...}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from graftlab.data.prepared import PreparedData
from graftlab.data.source import DataSpec, DemoData, JsonlData
from graftlab.errors import ConfigError, did_you_mean, require_range
from graftlab.models.base import ModelSpec
from graftlab.models.kinds import MODELS
from graftlab.objectives.base import Objective
from graftlab.objectives.ce import CrossEntropy
from graftlab.objectives.distill import Distill
from graftlab.recipes.teachers.base import TeacherSpec
from graftlab.recipes.teachers.http import HttpTeacher
from graftlab.recipes.teachers.local import LocalTeacher
from graftlab.recipes.teachers.rules import RulesTeacher
from graftlab.sweeps.launcher import AutoLauncher, JointLauncher, Launcher, LocalLauncher
from graftlab.sweeps.raycluster import RayLauncher
from graftlab.sweeps.slurm import SlurmLauncher
from graftlab.training.optim import AdamW, CustomOptimizer, OptimizerSpec

CHOICES: dict[str, dict[str, type]] = {
    "data": {"demo": DemoData, "jsonl": JsonlData, "prepared": PreparedData},
    "launcher": {
        "auto": AutoLauncher,
        "joint": JointLauncher,
        "local": LocalLauncher,
        "ray": RayLauncher,
        "slurm": SlurmLauncher,
    },
    "model": {**MODELS},
    "objective": {"distill": Distill, "sft": CrossEntropy},
    "optimizer": {"adamw": AdamW, "custom": CustomOptimizer},
    "teacher": {"http": HttpTeacher, "local": LocalTeacher, "rules": RulesTeacher},
}
"""Group -> choice -> class. A choice is also the name of its YAML file in `conf/<group>/`."""

BASES: dict[str, type] = {
    "data": DataSpec,
    "launcher": Launcher,
    "model": ModelSpec,
    "objective": Objective,
    "optimizer": OptimizerSpec,
    "teacher": TeacherSpec,
}
"""Group -> the base class that its choices share, as spec fields declare it."""

MARK = "choice"

Spec = TypeVar("Spec")


def dump(spec: Any) -> Any:
    """`spec` as plain dictionaries, lists and scalars, in field order; `restore` reads it back."""
    if isinstance(spec, Mapping):
        return {str(key): dump(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [dump(item) for item in spec]
    if not dataclasses.is_dataclass(spec):
        return spec
    mark = {MARK: name} if (name := choice_of(type(spec))) else {}
    return mark | {f.name: dump(getattr(spec, f.name)) for f in dataclasses.fields(spec)}


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
        raise ConfigError(f"`{where}{unknown[0]}` is not a key of {target.__name__}.{hint}")
    for name, value in values.items():
        nested, named = nested_spec(hints[name]), named_specs(hints[name])
        place = f"{path}.{name}" if path else name
        if nested is not None and value is not None:
            values[name] = restore(nested, value, path=place)
        elif named is not None:
            values[name] = {k: restore(named, v, path=f"{place}.{k}") for k, v in value.items()}
    try:
        spec: Spec = target(**values)
        require_finite(spec, path)
        return spec
    except TypeError as error:
        raise ConfigError(f"{path or target.__name__}: {error}") from error


def require_finite(value: Any, key: str = "") -> None:
    """Raise ConfigError naming the key of a number in a spec that is NaN or infinite."""
    if isinstance(value, float):
        require_range(key, value)
    inside: Iterable[tuple[Any, Any]] = ()
    if dataclasses.is_dataclass(value):
        inside = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    for name, part in inside:
        require_finite(part, f"{key}.{name}" if key else str(name))


def choice_of(cls: type) -> str | None:
    """The name under which CHOICES lists exactly this class, or None."""
    for options in CHOICES.values():
        for name, listed in options.items():
            if listed is cls:
                return name
    return None


def choices_under(base: type) -> dict[str, type]:
    """The choices of the group that shares `base`, or nothing when it is not such a base."""
    return next((CHOICES[group] for group, shared in BASES.items() if shared is base), {})


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Field name -> resolved type of a spec class, in field order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def nested_spec(hint: Any) -> type | None:
    """The spec class in a field's type (`Lora`, `EarlyStopping | None`), or None."""
    if get_origin(hint) in (dict, list):
        return None
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def named_specs(hint: Any) -> type | None:
    """The spec class of a dictionary of specs (`dict[str, SourceSpec]`), or None."""
    return nested_spec(get_args(hint)[1]) if get_origin(hint) is dict else None


def _chosen(cls: type, values: dict[str, Any], path: str) -> type:
    """Take the mark out of `values` and return the class it names."""
    options = choices_under(cls)
    if not options:
        return cls
    name = values.pop(MARK, None)
    if name not in options:
        where = path or cls.__name__
        hint = did_you_mean(str(name), options)
        raise ConfigError(f"{where}.{MARK}={name} is not one of {', '.join(options)}.{hint}")
    return options[name]
