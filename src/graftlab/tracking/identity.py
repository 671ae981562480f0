"""What decides a run's result: the identity of a configuration, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from graftlab.files.paths import portable, without_paths

BUDGETS = (
    *("run_dir", "resume", "logger", "max_minutes", "name"),
    *("budget", "machine", "sweep", "launcher", "date"),
)
"""Keys that do not change what a run computes, and so are not part of its identity."""


def identity(config: Mapping[str, Any], *, paths: bool = True) -> str:
    """Hash of what decides a run's result; `config` is `registry.dump(spec)`.

    Without `paths` where it stands beside hashes of what the files hold.
    """
    plain = decisive(config) if paths else without_paths(decisive(config))
    canonical = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration decides a run's result, its paths as seen from here."""
    kept = {key: value for key, value in config.items() if key not in BUDGETS}
    if isinstance(model := kept.get("model"), dict):
        # Whether code is trusted is said on every command line anew, also when a run is resumed.
        kept["model"] = {k: v for k, v in model.items() if k != "trust_remote_code"}
        if isinstance(stored := model.get("quantization"), dict):
            kept["model"]["quantization"] = {k: v for k, v in stored.items() if k != "cache"}
    return portable(kept)


def differences(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """A line `key: value -> value` for every decisive key in which they differ."""
    ours, theirs = flatten(decisive(config)), flatten(decisive(other))
    return [
        f"{key.replace('lora.from_run', 'lora.from')}: {_shown(ours, key)} -> {_shown(theirs, key)}"
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def flatten(config: Mapping[str, Any], *, under: str = "") -> dict[str, Any]:
    """Dotted key -> value, as tables of runs filter and sort; an empty group has no key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping)
        found |= flatten(value, under=f"{under}{key}.") if nested else {f"{under}{key}": value}
    return found


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False, default=str) if key in values else "unset"
