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

import torch
import torch.nn.functional as F
from torch import Tensor

KLS = ("forward", "inverse")


def divergence(
    student: Tensor, teacher: Tensor, *, kind: str, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Nats (n,) from logits of shape (n, V); both distributions are those at `temperature`."""
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    if kind in KLS:
        return kl(log_q, log_p, kind=kind)
    assert kind == "jsd", kind
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def kl(log_q: Tensor, log_p: Tensor, *, kind: str) -> Tensor:
    """Nats (n,) from log-probabilities of shape (n, V) of the student, q, and of the teacher, p."""
    return _kl(log_p, log_q) if kind == "forward" else _kl(log_q, log_p)


def acceptance(student: Tensor, teacher: Tensor) -> Tensor:
    """The probability (n,) that the teacher keeps a token which the student has drawn.

    It is the sum over the vocabulary of min(p, q), from logits of shape (n, V): speculative
    sampling, arXiv 2211.17192.
    """
    return torch.minimum(student.softmax(-1), teacher.softmax(-1)).sum(-1)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b) along the last axis."""
    return (log_a.exp() * (log_a - log_b)).sum(-1)
