"""Before anything runs: compose, build, and look whether the files are there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.config import build, compose
from graftlab.console import say
from graftlab.data.prepared import PreparedData
from graftlab.door.explain import explain, optional_parents, switched_off
from graftlab.door.jobs import place_job
from graftlab.door.menu import Menu, menu
from graftlab.door.recipe import recipe_words
from graftlab.door.space import dimension_of, swept_texts
from graftlab.door.words import Word, quote
from graftlab.errors import ConfigError, GraftlabError
from graftlab.training.auto import resolve_auto
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.spec import TrainSpec

if TYPE_CHECKING:
    from omegaconf import DictConfig


def _nobody(line: str) -> None:
    """Who is told nothing."""


@dataclass(frozen=True, slots=True)
class Door:
    """One verb with its menu and the folders its YAML comes from."""

    menu: Menu
    conf: Path
    extra: Path | None = None
    """A folder of the user's own options (`--config-dir`)."""

    def overrides(self, words: Sequence[Word]) -> list[str]:
        """The words for Hydra, with the user's folder on its search path."""
        mine = [word.hydra for word in words]
        if self.extra is None:
            return mine
        return [f"hydra.searchpath=[{quote(f'file://{self.extra.resolve()}')}]", *mine]


def verify(
    door: Door,
    overrides: Sequence[str],
    *,
    own: Sequence[str] = (),
    tell: Callable[[str], None] = _nobody,
) -> Any:
    """The spec of one job, composed, built, and its files looked for.

    `own` are the overrides that a sweep varies, `tell` is as in `built`. Raises GraftlabError with
    one message for people.
    """
    spec = _built(door, overrides, tell=tell)
    place_job(spec, own)
    check_parts(spec)
    return spec


def verified(door: Door, cfg: DictConfig) -> Any:
    """The spec that a composed configuration describes, with its files looked for.

    Raises GraftlabError with one message for people.
    """
    from omegaconf import open_dict

    own = copy.deepcopy(cfg)
    with open_dict(own):
        del own["hydra"]
    spec = _spec_of(door, own, list(cfg.hydra.overrides.task), tell=say)
    check_parts(spec)
    return spec


def verify_sweep(door: Door, overrides: Sequence[str]) -> Any:
    """The spec of a sweep's first job, after every swept value was verified, one at a time."""
    values = [sweep_values(override, door.menu) for override in overrides]
    swept = [place for place, options in enumerate(values) if len(options) > 1]
    first, *others = _one_at_a_time(values)
    spec = verify(door, first, own=[first[place] for place in swept])
    for job in others:
        verify(door, job, own=[job[place] for place in swept])
    return spec


def check_parts(spec: Any) -> None:
    """What a spec cannot know by itself: files, the model's modules, an optimizer's arguments.

    A verb that needs other files than training has a `check` of its own. Raises GraftlabError.
    """
    if isinstance(getattr(spec, "optimizer", None), CustomOptimizer):
        spec.optimizer.optimizer_class()
    if hasattr(spec, "check"):
        spec.check()
        return
    parts = ("data", "model", "lora", "logger")
    data, model, lora, logger = (getattr(spec, name, None) for name in parts)
    if logger is not None:
        logger.check()
    if data is not None:
        data.check()
    if lora is not None and lora.from_run:
        from graftlab.adapters.artifact import find_artifact

        find_artifact(lora.from_run).require_adapter()
    if model is None:
        return
    model.check()
    if lora is not None and model.on_disk:
        from graftlab.adapters.attach import check_lora

        check_lora(model, lora)


def composed(door: Door, overrides: Sequence[str], *, hydra: bool = False) -> DictConfig:
    """What Hydra makes of the overrides, with `hydra` its own node as well.

    Raises ConfigError with one message for people.
    """
    with explained(door, overrides):
        return compose(door.menu.verb, overrides, conf=door.conf, hydra=hydra)


def _built(door: Door, overrides: Sequence[str], *, tell: Callable[[str], None] = _nobody) -> Any:
    return _spec_of(door, composed(door, overrides), overrides, tell=tell)


def _spec_of(
    door: Door, cfg: DictConfig, overrides: Sequence[str], *, tell: Callable[[str], None]
) -> Any:
    with explained(door, overrides):
        if "run_dir" in cfg:
            cfg.run_dir = ""  # known only once Hydra has made the folder
        return built(door, cfg, tell=tell)


def built(door: Door, cfg: DictConfig, *, tell: Callable[[str], None] = _nobody) -> Any:
    """The spec that `cfg` describes, with numbers for `auto` and the recipe of its data in full.

    `tell` is given a line for each such number.

    Raises what the classes refuse, and ConfigError for the recipe.
    """
    spec = build(cfg)
    if hasattr(spec, "objective"):
        from graftlab.training.teacher import settle_key

        settle_key(spec.objective)
    data = getattr(spec, "data", None)
    if isinstance(data, PreparedData) and data.recipe is not None:
        from graftlab.recipes.dataset import compose as take
        from graftlab.recipes.dataset import named

        folders = [door.conf, *([door.extra] if door.extra else [])]
        kitchen = Door(menu("prepare", folders), door.conf, door.extra)
        with named(data):
            words = kitchen.overrides(recipe_words(data, kitchen.menu))
            take(data, _built(kitchen, words))
    if isinstance(spec, TrainSpec):
        for line in resolve_auto(spec):
            tell(line)
    return spec


@contextmanager
def explained(door: Door, overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except GraftlabError:
        raise
    except Exception as error:
        message = explain(error, door.menu, overrides) or _switched_off(door, overrides)
        if message is None:
            raise
        raise ConfigError(message) from error


def _switched_off(door: Door, overrides: Sequence[str]) -> str | None:
    """OmegaConf fails on a key inside a null node without naming it: find it."""
    from omegaconf import OmegaConf

    inside = {o: optional_parents(o.lstrip("+").split("=")[0], door.menu) for o in overrides}
    if not any(inside.values()):
        return None
    cfg = compose(door.menu.verb, [o for o in overrides if not inside[o]], conf=door.conf)
    for override, parents in inside.items():
        for parent in parents:
            if OmegaConf.select(cfg, parent) is None:
                key = override.lstrip("+").split("=")[0]
                return switched_off(key, parent, door.menu)
    return None


def _one_at_a_time(values: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first job of a sweep, and for every other swept value the first job with that value."""
    first = [options[0] for options in values]
    yield first
    for place, options in enumerate(values):
        for option in options[1:]:
            yield [*first[:place], option, *first[place + 1 :]]


def sweep_values(override: str, menu: Menu) -> list[str]:
    """An override as its jobs get it: itself, or one override per swept value."""
    dimension = dimension_of(override, menu)
    if dimension is None:
        return [override]
    key = override.partition("=")[0]
    return [f"{key}={text}" for text in swept_texts(dimension)]
