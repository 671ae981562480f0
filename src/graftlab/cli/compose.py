"""YAML in, specs out: where `conf/` lies, the schemas it is checked against, and building.

The schema is the class: `conf/<verb>.yaml` starts from the dataclass of its verb, and what Hydra
composes becomes that dataclass in one call of `build`. Nothing else sees a DictConfig.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.cli.secrets import refuse_secrets
from graftlab.errors import ConfigError, require_finite
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.files.paths import conf_dir
from graftlab.recipes.spec import PrepareSpec
from graftlab.registry import choices, dump, field_types, groups
from graftlab.schemas import gathered, schema_of
from graftlab.verbs.chat import ChatSpec
from graftlab.verbs.doctor import DoctorSpec
from graftlab.verbs.export import ExportSpec
from graftlab.verbs.inspect import InspectSpec
from graftlab.verbs.plan import PlanSpec
from graftlab.verbs.report import ReportSpec
from graftlab.verbs.sample import SampleSpec
from graftlab.verbs.serve import ServeSpec
from graftlab.verbs.train import TrainCommand
from graftlab.verbs.tune import TuneSpec

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

MASKED = "\x1a???"
"""Stands for the text `???`, which OmegaConf would read as "not given"."""

VERBS: dict[str, type] = {
    "train": TrainCommand,
    "tune": TuneSpec,
    "sample": SampleSpec,
    "chat": ChatSpec,
    "serve": ServeSpec,
    "evaluate": EvaluateSpec,
    "inspect": InspectSpec,
    "prepare": PrepareSpec,
    "plan": PlanSpec,
    "report": ReportSpec,
    "export": ExportSpec,
    "doctor": DoctorSpec,
}
"""Verb -> its spec; also the name of `conf/<verb>.yaml` and of `graftlab.verbs.<verb>`."""


def register() -> None:
    """Make the schemas known to Hydra, as `schema/<verb>` and `schema/<group>/<choice>`."""
    from graftlab.cli.options import install

    install()
    for verb, spec in VERBS.items():
        _store("schema", verb, schema_of(spec))
    for group in groups():
        for name, cls in choices(group).items():
            _store(f"schema/{group}", name, schema_of(cls))


@cache
def _store(group: str, name: str, schema: type) -> None:
    from hydra.core.config_store import ConfigStore
    from omegaconf.errors import OmegaConfBaseException

    field_types(schema)
    try:
        ConfigStore.instance().store(group=group, name=name, node=schema)
    except OmegaConfBaseException as error:
        where = f"{schema.__module__}.{schema.__qualname__}.{error.full_key}"
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}.") from error


def compose(
    verb: str, overrides: Sequence[str] = (), *, conf: Path | None = None, hydra: bool = False
) -> DictConfig:
    """The configuration of one run: `conf/<verb>.yaml` with Hydra `overrides` applied.

    With `hydra`, Hydra's own node is kept. Raises Hydra's and OmegaConf's errors as they are.

    Options take Hydra a third of a second, and what they compose to is kept; values are set in a
    copy of it, by Hydra's own function.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import open_dict

    conf = conf or conf_dir()
    register()
    words = _parsed(overrides)
    folders = [conf, *_search_path(words)]
    sets = [_sets_value(word, folders) for word in words]
    values = [word for word, value in zip(words, sets, strict=True) if value]
    options = [text for text, value in zip(overrides, sets, strict=True) if not value]
    state = _state(folders), _store.cache_info().misses
    cfg = copy.deepcopy(_composed(verb, tuple(options), conf, state))
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    if hydra:
        _note(cfg, words)
    else:
        with open_dict(cfg):
            del cfg["hydra"]
    return cfg


@lru_cache(maxsize=32)
def _composed(verb: str, options: tuple[str, ...], conf: Path, state: object) -> DictConfig:
    """What options compose to while files and classes are in this state; for reading only."""
    from hydra import compose as hydra_compose

    with initialized(conf):
        return hydra_compose(verb, overrides=list(options), return_hydra_config=True)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(overrides))


def _search_path(words: Sequence[Override]) -> list[Path]:
    """The folders of a user's own options."""
    given = [word.value() for word in words if word.key_or_group == "hydra.searchpath"]
    texts = [text for value in given if isinstance(value, list) for text in value]
    return [Path(text.removeprefix("file://")) for text in texts if isinstance(text, str)]


def _sets_value(word: Override, folders: Sequence[Path]) -> bool:
    """Whether an override sets a value in what the others compose to."""
    key = word.key_or_group
    if word.package is not None or word.is_delete() or word.is_sweep_override():
        return False
    if word.is_hydra_override():
        return key in ("hydra.run.dir", "hydra.sweep.dir")
    return isinstance(word.value(), dict) or not any((f / key).is_dir() for f in folders)


def _state(folders: Sequence[Path]) -> tuple[object, ...]:
    """What changes with any file in the folders."""
    files = sorted(file for folder in folders for file in folder.rglob("*.yaml"))
    stats = [file.stat() for file in files]
    return tuple((str(f), s.st_mtime_ns, s.st_size) for f, s in zip(files, stats, strict=True))


def _note(cfg: DictConfig, words: Sequence[Override]) -> None:
    """Write down in Hydra's node what was asked for, and where, as Hydra does."""
    from hydra._internal.config_loader_impl import get_overrides_dirname

    node = cfg.hydra
    own = [word for word in words if word.is_hydra_override()]
    task = [word for word in words if not word.is_hydra_override()]
    node.overrides.hydra = [word.input_line for word in own]
    node.overrides.task = [word.input_line for word in task]
    node.runtime.cwd = os.getcwd()
    look = node.job.config.override_dirname
    node.job.override_dirname = get_overrides_dirname(
        task, list(look.exclude_keys), look.item_sep, look.kv_sep
    )


class Composer:
    """Configurations of a sweep's points, whose keys are as they are typed: without a +."""

    def __init__(
        self,
        verb: str,
        overrides: Sequence[str],
        *,
        groups: Collection[str],
        conf: Path | None = None,
    ) -> None:
        """`overrides` hold for all; keys among `groups` choose options, all others set values."""
        self.verb, self.overrides, self.groups, self.conf = verb, list(overrides), groups, conf

    def compose(self, point: Mapping[str, str]) -> DictConfig:
        """What `compose` makes of the overrides and `key=text` for each of the point's."""
        from omegaconf import OmegaConf

        options = [f"{key}={text}" for key, text in point.items() if key in self.groups]
        cfg = compose(self.verb, [*self.overrides, *options], conf=self.conf)
        for key, text in point.items():
            if key not in self.groups:
                value = _parsed([f"{key}={text}"])[0].value()
                OmegaConf.update(cfg, key, value, merge=True, force_add=_is_free(cfg, key))
        return cfg


def _is_free(cfg: DictConfig, key: str) -> bool:
    """Whether a key may be new: it lies in a dictionary that takes any, and in no class's node."""
    from omegaconf import OmegaConf

    parent = key.rpartition(".")[0]
    while parent and (node := OmegaConf.select(cfg, parent)) is None:
        parent = parent.rpartition(".")[0]
    return bool(parent) and not dataclasses.is_dataclass(OmegaConf.get_type(node))


@contextmanager
def initialized(conf: Path) -> Iterator[None]:
    """Hydra, reading from the folder `conf`, also inside a job of it."""
    from hydra import initialize_config_dir

    register()
    with _beside_a_job(), initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        yield


@contextmanager
def _beside_a_job() -> Iterator[None]:
    """Hydra composes one configuration at a time, and a job it runs may need another."""
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance()
    running, outer.hydra = outer.hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def build(cfg: DictConfig) -> Any:
    """The spec that `cfg` describes; every class checks itself on the way.

    Raises what the classes refuse, and ConfigError for a value that is a secret.
    """
    from omegaconf import OmegaConf

    _refuse_foreign(cfg)
    spec = gathered(_unmask(OmegaConf.to_object(cfg)))
    require_finite(spec)
    refuse_secrets(dump(spec))
    return spec


def _refuse_foreign(cfg: DictConfig, place: str = "") -> None:
    """Raise OmegaConf's error for a key that is none of its node's class, which `++` sets."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import ConfigAttributeError

    kind = OmegaConf.get_type(cfg)
    known = getattr(kind, "__dataclass_fields__", None)
    for name, node in cfg.items_ex(resolve=False):
        key = f"{place}.{name!s}" if place else str(name)
        if known is not None and name not in known:
            error = ConfigAttributeError(f"{key} is no key")
            error.full_key, error.object_type = key, kind
            raise error
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()):
            _refuse_foreign(node, key)


def _unmask(spec: Any) -> Any:
    """Give back the text `???`, which OmegaConf cannot hold (cli/overrides.py put the mask)."""
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, str) and value == MASKED:
            setattr(spec, field.name, "???")
        elif dataclasses.is_dataclass(value):
            _unmask(value)
        elif isinstance(value, dict):
            for inner in filter(dataclasses.is_dataclass, value.values()):
                _unmask(inner)
    return spec
