"""What an objective is: named sums over the labelled positions of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError
from graftlab.registry import group, name_of

if TYPE_CHECKING:
    import torch

    from graftlab.types import Batch


@group("objective")
@dataclass(kw_only=True, slots=True)
class Objective(ABC):
    """Stateless; `terms` returns sums (not means), of which `loss` is minimised.

    The training module divides by `batch.step_units`, so neither packing nor accumulation
    changes the update.
    """

    unit: ClassVar[str] = "label"
    """What losses are means over: "label", or "document", where a pair of answers counts once."""
    takes: ClassVar[str] = "answers"
    """What it learns from: "answers", "pairs" (chosen and rejected) or "labels" (good or not)."""
    needs_reference: ClassVar[bool] = False
    """Whether `batch.reference` must hold log-probabilities: of the base, or of the adapter that
    training goes on from."""
    needs_mismatched: ClassVar[bool] = False
    """Whether `estimate` is asked, before every step and validation, of prompts that are followed
    by the answers to others."""
    JOINT: ClassVar[tuple[str, ...]] = ()
    """Own keys in which runs that train jointly may differ."""

    METRICS: ClassVar[Mapping[str, str]] = {}
    """Name of a number of `metrics` -> its unit, and what it is of, for people."""

    @abstractmethod
    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Summed terms over the labels or documents of `batch`, scalars; must hold `loss`."""

    def logged(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """What is logged of training steps, from the sums of their terms over so many units."""
        return {name: total / units for name, total in sums.items()}

    def estimate(self, policy: Any, batch: Batch) -> torch.Tensor:
        """A sum and a count, (2,), over mismatched answers; their mean is `policy.estimate`."""
        raise NotImplementedError

    def validation(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Sums over a held-out batch; must hold `loss`, by which runs are judged.

        Each is a scalar, or has a value for every label (n,) or document (where `unit` says so),
        which is summed by who asks: a `loss` of that shape gets an interval over documents.

        Cross-entropy in nats, whatever is trained, so that runs with different objectives can be
        compared, unless the objective has a better judge.
        """
        return {"loss": policy.weighted_nll(batch)}

    def metrics(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """What is reported of a whole set, from its sums and its number of `unit`s.

        `loss` is the validation loss; every other is logged as `valid/NAME`.
        """
        return {name: total / units for name, total in sums.items()}

    def measure(self) -> str:
        """What the validation loss is, in words; runs with the same words may be compared."""
        return "nats per trained token"

    def teacher_path(self) -> str | None:
        """The run, adapter or model folder of the teacher in `policy.teacher`; None without one."""
        return None

    def uses_teacher_answers(self) -> bool:
        """Whether the data's answers are replaced by the teacher's own before training."""
        return False

    def asks_base(self, *, validating: bool = False) -> bool:
        """Whether `terms` (`validation` when `validating`) ask `policy.reference` for the base.

        Where training itself does, lora=none is refused: it leaves no base to ask.
        """
        return False

    def base_batch(self, batch: Batch) -> Batch:
        """The documents of a training batch that `terms` asks the base about."""
        return batch

    def anchor_data(self) -> tuple[Any, float] | None:
        """Files of conversations that are mixed into the training data as ANCHOR, and their share
        of all labels; None without any.
        """
        return None

    def key_needing_validation(self) -> str | None:
        """Its own key that is of no use without a validation loss; None if there is none."""
        return None

    def after_validation(self, numbers: dict[str, float], state: dict[str, float]) -> bool:
        """Whether the adapter may be the run's best, as far as what was just found is concerned.

        Called in all processes alike, for validations of the run's own. May adjust `state`, which
        is `policy.state`; what is put into `numbers` is logged beside the others.
        """
        return True

    def strengths(self) -> tuple[float, ...]:
        """Strengths of the finished adapter (1 is as trained) at which it is validated again."""
        return ()


def loss_of(
    objective: Objective, found: Mapping[str, torch.Tensor], method: str = "terms"
) -> torch.Tensor:
    """The `loss` among what an objective's `method` returned. Raises ConfigError without one."""
    if "loss" not in found:
        raise ConfigError(
            f"objective={name_of(objective)}: {method}() must return a `loss`; it returned "
            f"{', '.join(found) or 'nothing'}."
        )
    return found["loss"]
