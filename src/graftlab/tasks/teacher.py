"""A model of ours as the teacher of `prepare`: base and adapter, loaded as `sample` loads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.tasks.sample import SampleSpec, found

if TYPE_CHECKING:
    from graftlab.recipes.teachers.local import Generate, LocalTeacher
    from graftlab.types import Conversation


@contextmanager
def speaking(teacher: LocalTeacher) -> Iterator[Generate]:
    """A function that answers conversations, while the teacher's model is loaded.

    Raises ConfigError or ModelError when the base or the adapter cannot be had.
    """
    generation = Generation(max_new_tokens=teacher.max_tokens, temperature=teacher.temperature)
    spec = SampleSpec(
        model=_model(teacher), adapter=teacher.adapter, prompt="unused", generation=generation
    )
    trained = found(spec)

    from graftlab.adapters.attach import load_trained
    from graftlab.generation.decode import generate
    from graftlab.models.cache import lend
    from graftlab.training.device import pick_device
    from graftlab.training.precision import resolve

    tokenizer = trained.load_tokenizer()
    device = pick_device("auto", key="device")
    precision = resolve(spec.precision, device)
    with lend(trained.model, dtype=precision.base_dtype, device=device) as base:
        load_trained(base, trained, dtype=precision.adapter_dtype)

        def answers(conversations: list[Conversation]) -> list[str]:
            with precision.autocast():
                return [generate(base, tokenizer, c, generation).text for c in conversations]

        yield answers


def _model(teacher: LocalTeacher) -> ModelSpec | None:
    if teacher.model is None:
        return None
    folder = Path(teacher.model).expanduser()
    return (
        TinyModel()
        if teacher.model == "tiny" and not folder.is_dir()
        else HFModel(path=teacher.model)
    )
