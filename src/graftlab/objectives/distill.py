"""`objective=distill`: a student learns what a teacher would say next, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.objectives.base import Objective
from graftlab.registry import choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.types import Batch

DIVERGENCES = ("inverse", "forward", "jsd")


@choice("distill")
@dataclass(kw_only=True, slots=True)
class Distill(Objective):
    """Divergence from a frozen teacher's next-token distribution, at labelled positions.

    Inverse KL: arXiv 2306.08543; generalised Jensen-Shannon: 2306.13649; see `divergence.py`.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "nll": "nats per trained token",
        "acceptance": "of drafted tokens are accepted",
        "accepted_tokens": "tokens a round",
    }

    teacher: str | None = None
    """The run, adapter folder, checkpoint or model folder to learn from: its base and adapter."""
    base: str | None = None
    """The model folder under a teacher whose run is not known, such as a checkpoint alone."""
    divergence: str = "inverse"
    """inverse: KL(student || teacher); forward: KL(teacher || student); jsd: between the two."""
    beta: float = 0.5
    """jsd only: the teacher's weight in the mixture; near 0 like forward, near 1 like inverse."""
    temperature: float = 1.0
    """Of both distributions; above 1 the student also learns how unlikely words compare."""
    on: str = "data"
    """data: on the answers of the data; teacher: on the teacher's own answers to its prompts."""
    samples_temperature: float = 1.0
    """on=teacher: how its answers are drawn; 1 is its own distribution, 0 is greedy."""
    samples_tokens: int = 256
    """on=teacher: longest answer in tokens."""
    draft_tokens: int = 5
    """Tokens drafted a round, for the expected accepted tokens that validation reports."""
    key: str | None = None
    """Filled in: the fingerprint of the teacher, so that another teacher makes another run."""

    def __post_init__(self) -> None:
        if self.teacher is None:
            raise ConfigError(
                "objective=distill needs objective.teacher=RUN: the run whose base and adapter "
                "the student learns from (a model folder serves too)."
            )
        require_choice("objective.divergence", self.divergence, DIVERGENCES)
        require_choice("objective.on", self.on, ("data", "teacher"))
        require_range("objective.temperature", self.temperature, above=0)
        require_range("objective.samples_temperature", self.samples_temperature, least=0)
        require_range("objective.samples_tokens", self.samples_tokens, least=1)
        require_range("objective.draft_tokens", self.draft_tokens, least=1)
        if not 0 < self.beta < 1:
            raise ConfigError(
                f"objective.beta={self.beta:g} must lie between 0 and 1; for the limits use "
                "objective.divergence=forward (0) or objective.divergence=inverse (1)."
            )

    def teacher_path(self) -> str | None:
        return self.teacher

    def uses_teacher_answers(self) -> bool:
        return self.on == "teacher"

    def terms(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        from graftlab.objectives.policy import weighted

        return {"loss": weighted(self._on_labels(policy, batch, self._divergence), batch).sum()}

    def validation(self, policy: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """The divergence by label; sums of cross-entropy, acceptances, and decoding by answers."""
        from graftlab.objectives.policy import weighted
        from graftlab.objectives.rounds import expected_rounds

        judged = self._on_labels(policy, batch, self._judge)  # (n, 3)
        accepted = judged[:, 2].cpu()
        rounds = kept = 0.0
        for start, end in answers(batch):
            made, held = expected_rounds(
                accepted[start:end].tolist(), draft_tokens=self.draft_tokens
            )
            rounds, kept = rounds + made, kept + held
        loss, nll, acceptance = (weighted(column, batch) for column in judged.unbind(1))
        return {
            "loss": loss,
            "nll": nll.sum(),
            "acceptance": acceptance.sum(),
            "rounds": judged.new_tensor(rounds),
            "kept": judged.new_tensor(kept),
        }

    def metrics(self, sums: Mapping[str, float], units: float) -> dict[str, float]:
        """Per token, and the drafted tokens that a round of decoding is expected to keep."""
        means = {name: sums[name] / units for name in ("loss", "nll", "acceptance")}
        return {**means, "accepted_tokens": sums["kept"] / sums["rounds"]}

    def _on_labels(self, policy: Any, batch: Batch, judge: Any) -> Tensor:
        """`judge` of student's and teacher's logits at labelled positions, in chunks; (n, ...)."""
        import torch

        from graftlab.objectives.policy import in_chunks

        teacher = policy.teacher
        assert teacher is not None, "a distilling policy has a teacher"
        hidden, labels = policy.labelled(batch)
        with torch.no_grad():
            taught, _ = teacher.labelled(batch)
        sizes = policy.base.vocab_size, teacher.base.vocab_size
        compare = partial(_compare, judge, policy, teacher, min(sizes))
        return in_chunks(compare, hidden, taught, labels, width=sum(sizes))

    def _divergence(self, student: Tensor, teacher: Tensor, _labels: Tensor) -> Tensor:
        from graftlab.objectives.divergence import divergence

        return divergence(
            student,
            teacher,
            kind=self.divergence,
            beta=self.beta,
            temperature=self.temperature,
        )

    def _judge(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        from graftlab.objectives.divergence import acceptance

        nll = F.cross_entropy(student, labels, reduction="none")
        apart = self._divergence(student, teacher, labels)
        return torch.stack([apart, nll, acceptance(student, teacher)], dim=1)


def _compare(
    judge: Any,
    policy: Any,
    teacher: Any,
    width: int,
    hidden: Tensor,
    taught: Tensor,
    labels: Tensor,
) -> Tensor:
    """Logits of both, over the ids that both have: beyond lies an embedding's padding."""
    import torch

    with torch.no_grad():
        wanted = teacher.logits(taught)[:, :width]
    found: Tensor = judge(policy.logits(hidden)[:, :width], wanted, labels)
    return found


def answers(batch: Batch) -> list[tuple[int, int]]:
    """Extents of the batch's answers among its labelled positions: runs of labels in a document."""
    import torch

    from graftlab.types import IGNORE

    labelled = (batch.labels[0] != IGNORE).cpu()
    begins = torch.cat([labelled.new_ones(1), ~labelled[:-1]])
    begins[batch.boundaries[:-1].long()] = True
    firsts = begins[labelled].nonzero()[:, 0].tolist()
    return list(pairwise([*firsts, int(labelled.sum())]))
