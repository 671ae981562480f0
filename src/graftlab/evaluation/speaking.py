"""Everybody who answers in one evaluation: found first, loaded when all else has been checked."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.caches import RowCache, default_cache
from graftlab.data.system import system_of
from graftlab.errors import ConfigError
from graftlab.evaluation.checkpoints import Facts, kept_checkpoints, named_by_step
from graftlab.serving.models import BASE, find_models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graftlab.adapters.artifact import TrainedModel
    from graftlab.evaluation.speakers import Speaker
    from graftlab.evaluation.spec import EvaluateSpec
    from graftlab.generation.prompts import Prompt
    from graftlab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Found:
    """The models of this machine that answer; nothing heavy is loaded."""

    trained: dict[str, TrainedModel]
    """By name, the base first; empty where only an endpoint answers."""
    tokenizer: Tokenizer | None
    """The base's."""
    facts: dict[str, Facts] = field(default_factory=dict)
    """Checkpoint, by name -> its step, epoch and validation loss."""

    @property
    def reserved(self) -> frozenset[str]:
        """Strings that no prompt may hold."""
        return self.tokenizer.reserved if self.tokenizer is not None else frozenset()

    @property
    def system(self) -> dict[str, str | None]:
        """What the base, and an endpoint, are told: the system turn and instruction that the
        adapters saw in training, where all saw the same."""
        nothing: dict[str, str | None] = {"system": None, "instruction": None}
        systems = [system_of(t.adapter.run()) for t in self.trained.values() if t.adapter]
        agreed = bool(systems) and all(one == systems[0] for one in systems)
        return systems[0] if agreed else nothing


def find_speakers(spec: EvaluateSpec) -> Found:
    """The models that `spec` names, their files there. Raises ConfigError or ModelError."""
    kept = kept_checkpoints(spec.checkpoints)
    if not spec.adapters and not kept and spec.model is None:
        return Found({}, None)
    adapters = [*spec.adapters, *map(str, kept)]
    found, facts = named_by_step(find_models(adapters, spec.model), kept)
    if spec.endpoint is not None and spec.endpoint_model in found:
        raise ConfigError(
            f"endpoint_model={spec.endpoint_model} is what another of the models is called, too: "
            "evaluate it apart."
        )
    return Found(found, found[BASE].load_tokenizer(), facts)


def load_speakers(
    spec: EvaluateSpec, found: Found, prompts: Sequence[Prompt], stack: ExitStack
) -> list[Speaker]:
    """Everybody, ready to be asked; the base is given back with `stack`.

    Raises ConfigError or ModelError.
    """
    speakers: list[Speaker] = []
    folder = default_cache() if spec.cache is None else Path(spec.cache).expanduser()
    if found.trained:
        speakers += _local(spec, found, prompts, folder, stack)
    if spec.endpoint is not None:
        from graftlab.evaluation.endpoint import EndpointSpeaker
        from graftlab.evaluation.spec import NAMES
        from graftlab.recipes.rewriters.endpoint import Endpoint
        from graftlab.recipes.rewriters.secret import key_for

        key = key_for(spec.endpoint, spec.key_env)
        model = str(spec.endpoint_model)
        known = hashlib.sha256(f"{spec.endpoint} {model}".encode()).hexdigest()[:16]
        speakers.append(
            EndpointSpeaker(
                model,
                Endpoint(spec.endpoint, key=key, timeout=spec.timeout, names=NAMES),
                url=spec.endpoint,
                generation=spec.generation,
                system=found.system,
                batch=spec.batch,
                retries=spec.retries,
                cache=RowCache(folder / f"replies-{known}.jsonl"),
            )
        )
    return speakers


def _local(
    spec: EvaluateSpec, found: Found, prompts: Sequence[Prompt], folder: Path, stack: ExitStack
) -> list[Speaker]:
    from graftlab.console import say
    from graftlab.evaluation.models import LocalSpeaker
    from graftlab.generation.form import check_forms
    from graftlab.models.cache import acquire
    from graftlab.serving.models import load_models
    from graftlab.training.device import pick_device
    from graftlab.training.precision import resolve

    assert found.tokenizer is not None, "there are models"
    check_forms(spec.generation, [prompt.conversation for prompt in prompts], found.tokenizer)
    device = pick_device(spec.device, key="device")
    precision = resolve(spec.precision, device)
    alone = found.trained[BASE]
    dtype = precision.base_dtype
    base = stack.enter_context(acquire(alone.model, dtype=dtype, device=device))
    models = load_models(base, found.trained, dtype=precision.adapter_dtype)
    models[BASE] = replace(models[BASE], system=found.system)
    say(f"{base.name}, {precision.name} on {device.type}, as: {', '.join(models)}")
    cache = RowCache(folder / f"replies-{base.fingerprint}.jsonl")
    return [
        LocalSpeaker(
            served,
            found.trained[name],
            base=base,
            precision=precision,
            generation=spec.generation,
            scale=spec.scale,
            batch=spec.batch,
            cache=cache,
            facts=found.facts.get(name, {}),
        )
        for name, served in models.items()
    ]
