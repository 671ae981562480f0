"""How far a student's next-token distribution q is from a teacher's p, position by position.

    inverse   KL(q || p)                        the student keeps to what the teacher would say
    forward   KL(p || q)                        the student covers all that the teacher would say
    jsd       beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q

Reverse KL for language models: MiniLLM, arXiv 2306.08543. Generalised Jensen-Shannon divergence:
GKD, arXiv 2306.13649; divided by beta it tends to the forward KL as beta -> 0, divided by 1 - beta
to the inverse KL as beta -> 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KLS = ("forward", "inverse")


def divergence(
    student: Tensor, teacher: Tensor, *, kind: str, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Nats (n,) from logits of shape (n, V); both distributions are those at `temperature`.

    With one of `KLS` as `kind` only the student gets a gradient.
    """
    if kind in KLS:
        found: Tensor = _KL.apply(student, teacher, kind, temperature)  # type: ignore[no-untyped-call]
        return found
    assert kind == "jsd", kind
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def nll_and_kl(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Of each row the negative log-likelihood of its label and KL(p || q), (n, 2), in nats.

    Only the student gets a gradient. Both at once take half the passes over the (n, V) logits that
    each by itself takes.
    """
    found: Tensor = _NLLAndKL.apply(student, teacher, labels)  # type: ignore[no-untyped-call]
    return found


def acceptance(student: Tensor, teacher: Tensor) -> Tensor:
    """The probability (n,) that the teacher keeps a token which the student has drawn.

    It is the sum over the vocabulary of min(p, q), from logits of shape (n, V): speculative
    sampling, arXiv 2211.17192.
    """
    return torch.minimum(student.softmax(-1), teacher.softmax(-1)).sum(-1)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) along the last axis."""
    return (log_a.exp() * (log_a - log_b)).sum(-1)


class _KL(torch.autograd.Function):
    """A KL of logits with half the passes over (n, V) that autograd would make.

    With temperature t and the gradient g of each row, the student's logits get (q - p) g / t of
    KL(p || q), and q (log q - log p - KL) g / t of KL(q || p).
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, kind: str, temperature: float
    ) -> Tensor:
        ours, theirs = _heated(student, temperature), _heated(teacher, temperature)
        apart = theirs - ours  # log p - log q + normal
        normal = theirs.logsumexp(-1) - ours.logsumexp(-1)
        ctx.kind, ctx.temperature = kind, temperature
        if kind == "forward":
            p = theirs.softmax(-1)
            ctx.save_for_backward(student, p)
            return apart.mul_(p).sum(-1) - normal
        found = normal - apart.mul_(ours.softmax(-1)).sum(-1)
        ctx.save_for_backward(student, teacher, normal - found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        student, *saved = ctx.saved_tensors
        scale = (gradients[0] / ctx.temperature)[:, None]
        ours = _heated(student, ctx.temperature)
        q = ours.softmax(-1)
        if ctx.kind == "forward":
            return q.sub_(saved[0]).mul_(scale), None, None, None
        teacher, level = saved
        apart = (ours - _heated(teacher, ctx.temperature)).add_(level[:, None])
        return q.mul_(apart).mul_(scale), None, None, None


class _NLLAndKL(torch.autograd.Function):
    """With gradients g of the nll and h of the KL, the student's logits get (q - y) g + (q - p) h,
    where y is one at the label.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
        p = log_p.exp()
        nll = -log_q.gather(1, labels[:, None])[:, 0]
        kl = log_p.sub_(log_q).mul_(p).sum(-1)
        ctx.save_for_backward(log_q, p, labels)
        return torch.stack([nll, kl], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        log_q, p, labels = ctx.saved_tensors
        of_nll, of_kl = gradients[0].unsqueeze(-1).unbind(1)  # (n, 1) each
        found = log_q.exp().mul_(of_nll + of_kl).addcmul_(p, of_kl, value=-1)
        return found.scatter_add_(1, labels[:, None], -of_nll), None, None


def _heated(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature
