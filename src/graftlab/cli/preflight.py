"""Before anything runs: compose, build, and look whether the files are there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.cli.compose import build, compose
from graftlab.cli.errors import explain, optional_parents, switched_off
from graftlab.cli.job_outputs import place_job
from graftlab.cli.overrides import Argument, quote
from graftlab.cli.recipe import recipe_arguments
from graftlab.cli.schema import Schema, read_schema
from graftlab.cli.space import dimension_of, swept_texts
from graftlab.console import say
from graftlab.data.prepared import PreparedData
from graftlab.errors import ConfigError, GraftlabError
from graftlab.plugins import raised_in
from graftlab.training.auto import resolve_auto
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.spec import TrainSpec

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One verb with its menu and the folders its YAML comes from."""

    schema: Schema
    conf: Path
    extra: Path | None = None
    """A folder of the user's own options (`--config-dir`)."""

    def overrides(self, words: Sequence[Argument]) -> list[str]:
        """The words for Hydra, with the user's folder on its search path."""
        mine = [word.hydra for word in words]
        if self.extra is None:
            return mine
        return [f"hydra.searchpath=[{quote(f'file://{self.extra.resolve()}')}]", *mine]


def verify(
    command: CommandLine,
    overrides: Sequence[str],
    *,
    own: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Any:
    """The spec of one job, composed, built, and its files looked for.

    `own` are the overrides that a sweep varies, `tell` is as in `built`. Raises GraftlabError with
    one message for people.
    """
    spec = _built(command, overrides, tell=tell)
    place_job(spec, own)
    check_parts(spec)
    return spec


def verified(command: CommandLine, cfg: DictConfig) -> Any:
    """The spec that a composed configuration describes, with its files looked for.

    Raises GraftlabError with one message for people.
    """
    from omegaconf import open_dict

    own = copy.deepcopy(cfg)
    with open_dict(own):
        del own["hydra"]
    with explained(command, list(cfg.hydra.overrides.task)):
        spec = built(command, own, tell=say)
    check_parts(spec)
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


def composed(command: CommandLine, overrides: Sequence[str], *, hydra: bool = False) -> DictConfig:
    """What Hydra makes of the overrides, with `hydra` its own node as well.

    Raises ConfigError with one message for people.
    """
    with explained(command, overrides):
        return compose(command.schema.verb, overrides, conf=command.conf, hydra=hydra)


def _built(
    command: CommandLine,
    overrides: Sequence[str],
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> Any:
    with explained(command, overrides):
        return built(command, composed(command, overrides), tell=tell)


def built(
    command: CommandLine, cfg: DictConfig, *, tell: Callable[[str], None] = lambda line: None
) -> Any:
    """The spec that `cfg` describes, with numbers for `auto` and the recipe of its data in full.

    `tell` is given a line for each such number.

    Raises what the classes refuse, and ConfigError for the recipe.
    """
    if "run_dir" in cfg:
        cfg.run_dir = ""  # known only once Hydra has made the folder
    spec = build(cfg)
    if hasattr(spec, "objective"):
        from graftlab.training.teacher import resolve_objective

        resolve_objective(spec.objective)
    data = getattr(spec, "data", None)
    if isinstance(data, PreparedData) and data.recipe is not None:
        from graftlab.recipes.dataset import compose as take
        from graftlab.recipes.dataset import named

        folders = [command.conf, *([command.extra] if command.extra else [])]
        recipe_command = CommandLine(read_schema("prepare", folders), command.conf, command.extra)
        with named(data):
            words = recipe_command.overrides(recipe_arguments(data, recipe_command.schema))
            take(data, _built(recipe_command, words))
    if isinstance(spec, TrainSpec):
        for line in resolve_auto(spec):
            tell(line)
    return spec


@contextmanager
def explained(command: CommandLine, overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except GraftlabError:
        raise
    except Exception as error:
        message = (
            explain(error, command.schema, overrides)
            or raised_in(error)
            or _switched_off(command, overrides)
        )
        if message is None:
            raise
        raise ConfigError(message) from error


def _switched_off(command: CommandLine, overrides: Sequence[str]) -> str | None:
    """OmegaConf fails on a key inside a null node without naming it: find it."""
    from omegaconf import OmegaConf

    inside = {o: optional_parents(o.lstrip("+").split("=")[0], command.schema) for o in overrides}
    if not any(inside.values()):
        return None
    cfg = compose(command.schema.verb, [o for o in overrides if not inside[o]], conf=command.conf)
    for override, parents in inside.items():
        for parent in parents:
            if OmegaConf.select(cfg, parent) is None:
                key = override.lstrip("+").split("=")[0]
                return switched_off(key, parent, command.schema)
    return None


def sweep_values(override: str, schema: Schema) -> list[str]:
    """An override as its jobs get it: itself, or one override per swept value."""
    dimension = dimension_of(override, schema)
    if dimension is None:
        return [override]
    key = override.partition("=")[0]
    return [f"{key}={text}" for text in swept_texts(dimension)]
