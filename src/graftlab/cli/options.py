"""Option files, judged before Hydra sees them: they hold values, and nothing that runs or leaks.

Hydra instantiates what its own node names (callbacks, launchers, log handlers), OmegaConf reads the
environment for whoever asks, and an experiment may come from anybody. So every YAML file that Hydra
loads passes here, whoever asks for it, but for those beside the groups, a part of the program.
"""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf

from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.files.reading import UnreadableError, load_yaml, read_text

HARMLESS = {"run": {"dir"}, "sweep": {"dir"}}
"""What of Hydra's node an option file may hold: where a run or a sweep lies."""
RESOLVERS = {"now", "oc.select"}
"""What may be computed in an option file, beside plain references such as ${seed}."""
INSTANTIATE = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}
"""Keys by which Hydra imports and calls things."""
RESERVED = {"hydra", "schema"}
"""Groups that are Hydra's and ours, not a user's."""
HOSTS = {"localhost", "127.0.0.1", "::1", "api.openai.com"}
"""Where an option file may have texts sent."""
_SPACE = re.compile(r"(?:^|\.)space\.")
"""Places in the space of a sweep, whose texts are read as words of the command line are."""
KEY_ENV = "OPENAI_API_KEY"

Names = list[str]  # inside the class below, `list` is a method

LARGEST = 2**20
"""Bytes of an option file; OmegaConf takes a minute for more."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's reader of `file://` folders, behind the judgement.

    It has the name of the one it replaces: Hydra's registry lets no other take its place.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        try:
            text = read_text(file, most=LARGEST)
            config = copy.deepcopy(_parsed(text))  # Hydra takes the defaults list out of it
        except UnreadableError as error:
            raise ConfigError(_named(file, str(error))) from error
        except (OSError, yaml.YAMLError) as error:  # OmegaConf's answer to a plain text, too
            why = " ".join(str(error).split())
            raise ConfigError(f"{file} is no option file: {why}") from error
        header = self._get_header_dict(text[:512])
        if config_path not in _ours():
            content = OmegaConf.to_container(config, resolve=False)
            problems = list(problems_of(config_path, header.get("package"), content))
            if problems:
                raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> Names:
        """The options of a group; a file whose name begins with _ is what options share."""
        found = super().list(config_path, results_filter)
        return [name for name in found if not name.startswith("_")]


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """An option file: a sweep composes the same ones again and again. Raises as load_yaml does."""
    load_yaml(text)  # for its limits; what counts is what OmegaConf makes of it
    return OmegaConf.load(io.StringIO(text))


@cache
def _ours() -> frozenset[str]:
    """What lies beside the groups in our `conf/`; no folder of a user's is asked for it."""
    return frozenset(file.stem for file in conf_dir().glob("*.yaml"))


def install() -> None:
    """Let Hydra read files through the judgement."""
    Plugins.instance()  # registers its own first
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def problems_of(config_path: str, package: str | None, content: Any) -> Iterator[str]:
    """What an option file may not hold, each as a sentence with its key."""
    for name in RESERVED.intersection(config_path.split("/")[:-1]):
        yield f"a folder `{name}/` of options is not for your own files."
    if "hydra" in _names(package or ""):
        yield f"`@package {package}` would put its keys into Hydra's node. {_HYDRA}"
    if not isinstance(content, Mapping):
        yield "an option file holds keys, not a list."
        return
    for key, value in content.items():
        if key == "defaults":
            yield from _defaults(value)
        elif key == "hydra":
            yield from _node(value)
            yield from _values(value, "hydra")
        else:
            yield from _values({key: value}, "")


_HYDRA = (
    "Of Hydra's node an option file may set hydra.run.dir and hydra.sweep.dir; what else it needs "
    "is given on the command line."
)


def _node(value: Any) -> Iterator[str]:
    """What of Hydra's own node is more than a folder."""
    if not isinstance(value, Mapping):
        yield f"`hydra` is not to be replaced. {_HYDRA}"
        return
    for name, inner in value.items():
        if name not in HARMLESS:
            yield f"`hydra.{name}` can run code or read the environment. {_HYDRA}"
        elif not isinstance(inner, Mapping):
            yield f"`hydra.{name}` is not to be replaced. {_HYDRA}"
        else:
            others = [key for key in inner if key not in HARMLESS[name]]
            yield from (f"`hydra.{name}.{key}` is not for a file. {_HYDRA}" for key in others)


def _defaults(entries: Any) -> Iterator[str]:
    """Entries that reach for Hydra's groups or node, under whatever spelling."""
    for entry in entries if isinstance(entries, list) else []:  # Hydra says what it expects
        parts = _flat(entry)
        shown = ": ".join(parts)
        if any("hydra" in _names(part) for part in parts):
            yield f"`defaults: {shown}` reaches into Hydra's node. {_HYDRA}"
        elif "${" in shown:
            yield f"`defaults: {shown}`: options are named as they are, not by a reference."


def _flat(entry: Any) -> list[str]:
    """Keys and values of one entry as texts."""
    if not isinstance(entry, Mapping):
        return [str(entry)]
    values = [v if isinstance(v, list) else [v] for v in entry.values()]
    return [str(part) for part in [*entry, *(item for value in values for item in value)]]


def _names(text: str) -> list[str]:
    """The names in a path, a package or an entry of a defaults list."""
    return [name for name in re.split(r"[^\w-]+", text) if name]


def _values(value: Any, place: str) -> Iterator[str]:
    """What no value or key at any depth may be."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            below = f"{place}.{key}" if place else str(key)
            yield from _key(str(key), inner, below)
            yield from _values(inner, below)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _values(inner, f"{place}[{number}]")
    elif isinstance(value, str) and "{" in value and _SPACE.search(place):
        yield f"`{place}`: the space of a sweep holds values; braces would make keys of them."
    elif isinstance(value, str) and "${" in value:
        yield from _interpolation(value, place)


def _key(key: str, value: Any, place: str) -> Iterator[str]:
    """What a key may not be or hold; those of a sweep's space are whole words, with dots."""
    name = key.rpartition(".")[2]
    given = value if isinstance(value, list) else [value]
    if name in INSTANTIATE:
        yield f"`{place}` names code to be called, which no option file may."
    elif re.match(r"[+~]*hydra[./]", key):
        yield f"`{place}` reaches into Hydra's node. {_HYDRA}"
    elif name == "trust_remote_code" and any(item not in (None, False) for item in given):
        yield f"`{place}`: trust in code is given on each command line, {place}=true, by no file."
    elif place == "plugins":
        yield f"`{place}`: code is allowed on each command line, plugins=[MODULE], by no file."
    elif name == "setup" and value:
        yield f"`{place}`: lines for a shell are given on each command line, by no file."
    elif name == "key_env" and any(item not in (None, KEY_ENV) for item in given):
        yield f"`{place}`: what secret is sent is said on the command line ({place}={value})."
    elif place == "host":
        yield f"`{place}`: who may reach an endpoint is said on the command line ({place}={value})."
    elif name == "url" and any(isinstance(u, str) and _host(u) not in HOSTS for u in given):
        yield f"`{place}`: where texts go is said on the command line ({place}={value})."


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _interpolation(text: str, place: str) -> Iterator[str]:
    """Resolvers beyond the harmless ones: they read the environment, files and Hydra's node."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    def resolvers(node: Any) -> Iterator[str]:
        if type(node).__name__ == "ResolverNameContext":  # a class that ANTLR generates
            yield node.getText()
        for child in getattr(node, "children", None) or ():
            yield from resolvers(child)

    try:
        found = [name for name in resolvers(parse(text)) if name not in RESOLVERS]
    except GrammarParseError as error:
        yield f"`{place}` holds no readable interpolation: {' '.join(str(error).split())}"
        return
    for name in dict.fromkeys(found):
        yield (
            f"`{place}` asks the resolver `{name}`, which can read the environment: what it read "
            "would be written into run.yaml and checkpoints. Give the value itself."
        )


def _named(file: Path, message: str) -> str:
    return message if str(file) in message else f"{file} {message}"
