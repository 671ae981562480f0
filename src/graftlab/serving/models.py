"""What an endpoint serves: one base, and adapters that take turns on it, each under a name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.artifact import TrainedModel, trained_model
from graftlab.errors import ConfigError, GraftlabError

if TYPE_CHECKING:
    import torch

    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base, ModelSpec
    from graftlab.text.tokenizer import Tokenizer

BASE = "base"
"""The name of the base without any adapter."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The base as one of its names speaks; of each there is one, compared by identity."""

    name: str
    tokenizer: Tokenizer
    adapter: Adapter | None
    """Detached from the base but while it speaks."""
    system: dict[str, str | None]
    """The system turn and instruction of training, for `data.system.with_system`."""

    def speaking(self) -> AbstractContextManager[Any]:
        """The context in which the base speaks so."""
        return nullcontext() if self.adapter is None else self.adapter.mounted()


def find_models(adapters: Sequence[str], base: ModelSpec | None) -> dict[str, TrainedModel]:
    """What is to be served, by name: the base first, then each adapter; nothing heavy is loaded.

    Raises ConfigError with all that is wrong: what is not there, adapters of another base than
    `base` or than each other, and one that is named twice.
    """
    found, problems = [], []
    for path in adapters:
        try:
            found.append(trained_model(path, base))
        except GraftlabError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    alone = trained_model(None, found[0].model if found else base)
    _require_one_base(alone, found)
    return {BASE: alone} | dict(zip(served_names(found), found, strict=True))


def served_names(found: Sequence[TrainedModel]) -> list[str]:
    """A name for each adapter: its run's folder, with those above it where several share that.

    Raises ConfigError where two are the same.
    """
    places = [trained.adapter.path for trained in found if trained.adapter is not None]
    twice = [t.path for t, place in zip(found, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ConfigError(f"adapters={' and '.join(twice)}: they are the same adapter.")
    tails = [_tails(place) for place in places]
    names = []
    for own in tails:
        taken = {BASE, *(tail for other in tails if other is not own for tail in other)}
        names.append(next((tail for tail in own if tail not in taken), f"/{own[-1]}"))
    return names


def _tails(place: Path) -> list[str]:
    """'c', 'b/c', 'a/b/c' of /a/b/c; `adapter` in a run's folder is what the run is."""
    parts = place.parts[1:]
    parts = parts[:-1] if parts[-1] == "adapter" and len(parts) > 1 else parts
    return ["/".join(parts[-size:]) for size in range(1, len(parts) + 1)]


def _require_one_base(base: TrainedModel, found: Sequence[TrainedModel]) -> None:
    wanted, problems = base.model.fingerprint(), []
    for trained in found:
        assert trained.adapter is not None
        if trained.model.fingerprint() != wanted:
            problems.append(
                f"{trained.path} belongs to {trained.model.name}, {found[0].path} to "
                f"{base.model.name}."
            )
        elif trained.adapter.base_fingerprint() not in (None, wanted):
            problems.append(f"{trained.path} was trained on another base than {base.model.name}.")
    if problems:
        raise ConfigError(
            "\n".join([*problems, "One base is loaded: take adapters of another one apart."])
        )


def load_models(
    base: Base, found: dict[str, TrainedModel], *, dtype: torch.dtype
) -> dict[str, ServedModel]:
    """All of `find_models` on `base`, adapters in `dtype`. Raises ModelError where one is unfit."""
    from graftlab.adapters.attach import load_trained
    from graftlab.data.system import system_of

    served = {}
    for name, trained in found.items():
        adapter = load_trained(base, trained, dtype=dtype)
        if adapter is not None:
            adapter.detach()
        run = trained.adapter.run() if trained.adapter is not None else {}
        served[name] = ServedModel(name, trained.load_tokenizer(), adapter, system_of(run))
    return served
