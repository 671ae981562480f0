"""The teacher of a run that distils: found, told apart, and loaded once, frozen.

find         where base and adapter are; no weight is read
settle_key   its fingerprint goes into the objective, and so into the identity of the run
check_pair   the student's tokenizer must be the teacher's
opened       base and adapter as a policy without gradients
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.artifact import TrainedModel, find_artifact
from graftlab.adapters.attach import load_trained
from graftlab.data.files import locate
from graftlab.errors import ConfigError, ModelError
from graftlab.models.folder import model_in

if TYPE_CHECKING:
    import torch

    from graftlab.objectives.base import Objective
    from graftlab.objectives.policy import Policy
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.training.precision import Resolved

ROLE = "teacher"
"""Under which a teacher's base rests between the jobs of a process, beside the students'."""


def find(path: str, *, base: str | None = None) -> TrainedModel:
    """The teacher meant by `objective.teacher`. Raises ModelError naming the key.

    `base` is the model folder under an adapter whose run is not known.
    """
    try:
        given = None if base is None else model_in(Path(base).expanduser())
        if base is not None and given is None:
            raise ModelError(f"objective.base={base} is no model folder.")
        return find_artifact(path).standing_alone(given, advice="give objective.base=FOLDER")
    except (ModelError, ConfigError) as error:
        raise ModelError(f"objective.teacher={path}: {error}") from error


def asked(objective: Objective) -> TrainedModel | None:
    """The teacher that an objective asks; None where it asks none. Raises ModelError."""
    path = objective.teacher_path()
    return None if path is None else find(path, base=getattr(objective, "base", None))


def resolve_objective(objective: Objective) -> None:
    """Look for the files that an objective names, and put its teacher's fingerprint into it.

    Raises ConfigError for missing anchors, and ModelError where the teacher is missing, or no
    longer the one that the key is of.
    """
    teacher = asked(objective)
    if (anchored := objective.anchor_data()) is not None:
        locate("objective.anchors", anchored[0])
    if teacher is None:
        return
    asking: Any = objective
    key = teacher.fingerprint()
    if asking.key not in (None, key):
        raise ModelError(
            f"objective.teacher={teacher.path} is not the teacher this run began with (fingerprint "
            f"{key}, it was {asking.key}). Bring that one back, or start a new run."
        )
    asking.key = key


def check_pair(objective: Objective, tokenizer: Tokenizer) -> None:
    """Raise ConfigError unless the student's tokenizer is the teacher's, template and all."""
    from graftlab.text.same import vocabulary_difference

    teacher = asked(objective)
    if teacher is None:
        return
    path, theirs = teacher.path, teacher.load_tokenizer()
    different = vocabulary_difference(tokenizer, theirs)
    if different is not None:
        raise ConfigError(
            f"objective.teacher={path} has another tokenizer than the student ({different}): it "
            "cannot judge the student's words. Take a student of the same family, or "
            f"model=draft model.of={path}."
        )
    if tokenizer.template != theirs.template:
        folder = teacher.adapter.folder if teacher.adapter else teacher.model.folder()
        template = folder / "chat_template.jinja"
        fix = (
            f"model.template={template}" if template.is_file() else "its template (model.template)"
        )
        raise ConfigError(
            f"objective.teacher={path} was trained with another chat template than the student's: "
            f"it would be asked in a form that it does not know. Give {fix}."
        )


@contextmanager
def opened(
    objective: Objective, *, precision: Resolved, device: torch.device
) -> Iterator[Policy | None]:
    """The teacher as a frozen policy in eval mode; None for an objective that asks none.

    Raises ModelError where the adapter was trained on another base than there is now.
    """
    from graftlab.models.cache import acquire
    from graftlab.objectives.policy import Policy

    teacher = asked(objective)
    if teacher is None:
        yield None
        return
    with acquire(teacher.model, dtype=precision.base_dtype, device=device, role=ROLE) as base:
        try:
            adapter = load_trained(base, teacher, dtype=precision.adapter_dtype)
        except ModelError as error:
            raise ModelError(f"objective.teacher={teacher.path}: {error}") from error
        base.model.requires_grad_(False)
        base.model.eval()
        yield Policy(base, adapter)


def num_weights(objective: Objective) -> int:
    """Weights of the teacher's base and adapter, from the files' headers; 0 without a teacher."""
    from graftlab.models.quantization.packed import weights_in
    from graftlab.models.weights import file_tensors

    teacher = asked(objective)
    if teacher is None:
        return 0
    if (published := teacher.model.published) is not None:
        shapes = [*published.tensors().values()]
    else:
        shapes = [tensor.shape for tensor in weights_in(teacher.model.folder()).values()]
    if teacher.adapter is not None and teacher.adapter.file.suffix == ".safetensors":
        shapes += [tensor.shape for tensor in file_tensors(teacher.adapter.file).values()]
    return sum(map(math.prod, shapes))
