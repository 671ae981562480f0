"""The jobs of a sweep before any of them starts: their specs, and whether the budget holds them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from graftlab.config import build
from graftlab.door.menu import Menu
from graftlab.door.verify import Door, composed, sweep_values
from graftlab.door.words import Word


def keep_within_budget(door: Door, words: Sequence[Word]) -> None:
    """Raise ConfigError where the jobs of a training sweep would pass its budget together."""
    if door.menu.verb != "train":
        return
    specs = sweep_specs(door, words)
    first = next(specs)
    if not first.budget.given:
        return
    from graftlab.tasks.plan import refuse_sweep_over_budget

    folder = next((word.typed for word in words if word.key == "hydra.sweep.dir"), None)
    home = Path(folder.partition("=")[2].strip("'\"")) if folder else None
    refuse_sweep_over_budget([first, *specs], home=home)


def sweep_specs(door: Door, words: Sequence[Word]) -> Iterator[Any]:
    """The spec of every job of a grid, the last word turning fastest, as Hydra orders them.

    Composing takes a tenth of a second, so it is done once for each combination of groups; values
    are set afterwards, as composing itself does last of all.
    """
    overrides = door.overrides(words)
    options = [sweep_values(override, door.menu) for override in overrides]
    bases: dict[tuple[str, ...], Any] = {}
    for job in product(*options):
        late = [o for o, among in zip(job, options, strict=True) if _is_value(among, door.menu)]
        early = tuple(override for override in job if override not in late)
        if early not in bases:
            first = [among[0] if o in late else o for o, among in zip(job, options, strict=True)]
            bases[early] = composed(door, first)
            bases[early].run_dir = ""  # known only once Hydra has made the folder
        yield build(_with_values(bases[early], late))


def _is_value(among: Sequence[str], menu: Menu) -> bool:
    """Whether a swept word only sets a key: neither chooses from a group nor adds or removes."""
    if len(among) < 2:
        return False
    key = among[0].partition("=")[0]
    return key[0] not in "+~" and key not in menu.groups and not key.startswith("hydra.")


def _with_values(cfg: Any, late: Sequence[str]) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    changed = copy.deepcopy(cfg)
    for override in OverridesParser.create().parse_overrides(list(late)):
        OmegaConf.update(changed, override.key_or_group, override.value(), merge=True)
    return changed
