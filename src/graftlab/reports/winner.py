"""The best configuration as an experiment file: what differs from the defaults, and from where."""

from __future__ import annotations

import json
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from graftlab.registry import MARK
from graftlab.reports.compare import Comparison, values_of
from graftlab.reports.run import UNDECISIVE, ReportedRun
from graftlab.reports.values import written
from graftlab.tracking.identity import BUDGETS

SIGN = "# Written by `graftlab report best=true`"
"""How such a file is known again: only it is ever replaced."""


@dataclass(frozen=True, slots=True)
class Experiment(ABC):
    """A configuration as an experiment file."""

    config: Mapping[str, Any]
    """A `run.yaml`, nested."""

    @property
    @abstractmethod
    def head(self) -> list[str]:
        """Comments at the beginning, the first one as such a file is known again."""

    @abstractmethod
    def source(self, key: str) -> str:
        """Where the value of a dotted key comes from, in words."""

    def choices(self) -> dict[str, str]:
        """Group -> the choice that its class belongs to, as in `model=hf`."""
        return {
            group: node[MARK]
            for group, node in sorted(self.config.items())
            if isinstance(node, Mapping) and MARK in node
        }

    def text(self, defaults: Mapping[str, Any], chosen: Mapping[str, str]) -> str:
        """The file: `defaults` is the configuration that `chosen` alone would give."""
        return "\n".join(
            [
                "# @package _global_",
                *self.head,
                *(["defaults:"] if chosen else []),
                *(
                    f"  - override /{group}: {name} # {self.source(f'{group}.{MARK}')}"
                    for group, name in chosen.items()
                ),
                "",
                *self._lines(experiment_values(self.config), defaults, "", 0),
                "",
            ]
        )

    def _lines(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any], path: str, depth: int
    ) -> Iterator[str]:
        for name, value in values.items():
            default, place = defaults.get(name, ...), f"{path}{name}"
            indent = "  " * depth
            if name == MARK or value == default:
                continue
            if isinstance(value, Mapping) and value:
                below = default if isinstance(default, Mapping) else {}
                if lines := list(self._lines(value, below, f"{place}.", depth + 1)):
                    yield f"{indent}{name}:"
                    yield from lines
            else:
                yield f"{indent}{name}: {scalar(value)} # {self.source(place)}"


@dataclass(frozen=True, slots=True)
class Winner(Experiment):
    """The best run of a comparison."""

    found: Comparison
    run: ReportedRun

    @property
    def head(self) -> list[str]:
        return [
            f"{SIGN}: the configuration of {self.run.folder}.",
            *_wrapped(self.found.sentence()),
        ]

    def source(self, key: str) -> str:
        if key not in self.found.keys:
            return "as in the run" if len(self.found.runs) == 1 else "as in every run"
        values = [written(value) for value in values_of(self.found.runs, key)]
        if key == "seed":
            return "of the replicate that came out best"
        several = f"{', '.join(values[:6])}{', ...' if len(values) > 6 else ''}"
        return f"best of {several}".replace("\n", " ")


def experiment_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a nested configuration an experiment file says: what decides the result.

    Samples do where text that repeats itself stops the run, and only there.
    """
    callbacks = config.get("callbacks") or {}
    stops = (callbacks.get("repetition") or {}).get("stop", False)
    left_out = [*UNDECISIVE, *([] if stops else ["callbacks.samples"])]
    kept = {key: value for key, value in config.items() if key not in BUDGETS}
    for group, key in (dotted.split(".") for dotted in left_out):
        if isinstance(kept.get(group), Mapping):
            kept[group] = {name: value for name, value in kept[group].items() if name != key}
    return kept


def winner(found: Comparison) -> ReportedRun | None:
    """The best replicate of the best point; None where nothing may be called best."""
    if found.winner is None:
        return None
    return min(found.winner.runs, key=lambda run: run.score or 0.0)


def scalar(value: Any) -> str:
    """A value in one line of YAML that OmegaConf reads as it is, without interpolation."""
    if isinstance(value, str):
        # Before "${", backslashes escape: each of them is doubled, and one more is added.
        return json.dumps(_literal(value), ensure_ascii=False) if _special(value) else value
    if isinstance(value, list):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, float):
        return yaml.safe_dump(value).split("\n")[0]
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)


def _special(text: str) -> bool:
    """Whether a text needs quotes: anything but a plain name or path."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./-]*", text, re.ASCII)
    words = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
    return plain is None or text.lower() in words or text in (".", "..", ".nan", ".inf")


def _wrapped(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"
