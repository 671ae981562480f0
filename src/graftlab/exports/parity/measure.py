"""How far an export, in the program that runs it, is from what was trained.

Divergences are in nats, means over all positions of the answers. Where a runtime tells its
likeliest tokens alone, all others count as one, which makes a divergence smaller, never larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlab.console import console
from graftlab.progress import Progress

if TYPE_CHECKING:
    from graftlab.exports.parity.reference import Said
    from graftlab.exports.parity.rows import Row, Rows
    from graftlab.exports.runtimes.base import Runtime, Scores
    from graftlab.text.tokenizer import Tokenizer

LEAST_GAIN = 0.02
"""Nats per token that an adapter must gain on the rows for a share of it to be told."""
TINY = 1e-12


@dataclass(kw_only=True, slots=True)
class Measured:
    """What was found; `shown` tells it to people."""

    runtime: str
    rows: int
    origin: str
    """Where the rows are from."""
    why: str = ""
    """Why they are not the run's own."""
    positions: int
    same_prompts: int = 0
    first_prompt: str = ""
    """The first difference between prompts, by row; '' where there is none."""
    endless: list[str] = field(default_factory=list)
    """Tokens that ended a reply in training and do not end one in the runtime."""
    ends_replies: bool = True
    """Whether it is the export that says where replies end."""
    largest: float = 0.0
    """Largest difference of a log-probability of the answers."""
    mean: float = 0.0
    kl: float = 0.0
    """KL(trained || export)."""
    kl_base: float = 0.0
    """KL(base || export): near zero where the adapter is not in it."""
    moved: float = 0.0
    """KL(trained || base): what the adapter does."""
    differing: int = 0
    """Positions at which another token is the likeliest."""
    replies: int = 0
    """Greedy replies that are equal, token by token."""
    first_reply: str = ""
    nll_base: float = 0.0
    """Mean negative log-likelihood of the answers, nats per token: the base alone."""
    nll_adapter: float = 0.0
    nll_export: float = 0.0
    nll_error: float = 0.0
    """Standard error of nll_export - nll_adapter: few answers make a share of the gain coarse."""
    nll_control: float | None = None
    """The base alone in the export's runtime; None where that was not asked."""
    kl_control: float | None = None
    """KL(base || the base alone in the export's runtime)."""
    scores: list[Scores] = field(default_factory=list, repr=False)
    """What the runtime said to each row."""

    @property
    def gain(self) -> float:
        """What the adapter gains on the answers, in nats per token."""
        return self.nll_base - self.nll_adapter

    @property
    def recovered(self) -> float | None:
        """The share of the gain that the export has; None where the gain is too small."""
        return self._share(self.nll_export)

    @property
    def control(self) -> float | None:
        """The same of the base alone in the same runtime: 0 but for what the runtime rounds."""
        return None if self.nll_control is None else self._share(self.nll_control)

    @property
    def margin(self) -> float | None:
        """Two standard errors of `recovered`."""
        return 2 * self.nll_error / self.gain if self.recovered is not None else None

    def _share(self, nll: float) -> float | None:
        return (self.nll_base - nll) / self.gain if self.gain >= LEAST_GAIN else None

    def shown(self) -> list[str]:
        """A table, a line each."""
        lines = [
            ("prompt ids", _of(self.same_prompts, self.rows, self.first_prompt)),
            ("replies end", self._ends()),
            ("log-probabilities", f"largest difference {self.largest:.2g}, mean {self.mean:.2g}"),
            ("KL", f"{self.kl:.2g} nats (the adapter moves its base by {self.moved:.2g})"),
            ("likeliest token", _of(self.positions - self.differing, self.positions)),
            ("greedy replies", _of(self.replies, self.rows, self.first_reply)),
            ("recovered gain", self._recovered()),
        ]
        head = f"as in training? {self.runtime}, {self.positions} positions of "
        return [
            f"{head}{self.rows} {self.origin}",
            *([f"  (not the run's own rows: {self.why})"] if self.why else []),
            *(f"  {name:<18} {value}" for name, value in lines),
        ]

    def _ends(self) -> str:
        if not self.endless:
            return "where they ended in training"
        told = f"not at {', '.join(self.endless)}"
        return told if self.ends_replies else f"{told}, unless the caller says so"

    def _recovered(self) -> str:
        if self.recovered is None:
            return (
                f"not told: the adapter gains {self.gain:.2g} nats per token on these rows, and "
                "KL decides"
            )
        control = "" if self.control is None else f" (the base alone: {self.control:.4f})"
        margin = f" ± {self.margin:.2g}" if self.margin else ""
        return f"{self.recovered:.4f}{margin} of {self.gain:.2g} nats per token{control}"


def measure(
    runtime: Runtime,
    tokenizer: Tokenizer,
    asked: Rows,
    said: Sequence[Said],
    *,
    tokens: int,
) -> Measured:
    """Ask the runtime, which is opened, all of it; the base alone comes last."""
    rows = asked.rows
    found = Measured(
        runtime=runtime.name,
        rows=len(rows),
        origin=asked.origin,
        why=asked.why,
        positions=sum(len(row.answer) for row in rows),
        ends_replies=runtime.ends_replies,
    )
    if not runtime.ends_at(tokenizer.stop_ids[0]):
        found.endless.append(tokenizer.stop)
    differences = []
    with Progress(f"rows in {runtime.name}", total=len(rows), console=console()) as progress:
        for row, one in zip(rows, said, strict=True):
            _ask_prompt(found, runtime, tokenizer, row)
            scores = runtime.score(row.prompt, row.answer)
            found.scores.append(scores)
            differences.append(scores.chosen - _chosen(one.trained, row))
            _add(found, row, one, scores)
            _ask_reply(found, runtime, tokenizer, row, one, tokens)
            progress.advance()
    together = torch.cat(differences)
    found.largest, found.mean = float(together.abs().max()), float(together.abs().mean())
    found.nll_error = float(together.std(correction=0)) / len(together) ** 0.5
    with runtime.alone() as able:
        if able:
            alone = [runtime.score(row.prompt, row.answer) for row in rows]
            total = found.positions
            found.nll_control = -sum(float(scores.chosen.sum()) for scores in alone) / total
            pairs = zip(said, alone, strict=True)
            found.kl_control = sum(divergence(one.base, scores) for one, scores in pairs) / total
    return found


def _ask_prompt(found: Measured, runtime: Runtime, tokenizer: Tokenizer, row: Row) -> None:
    try:
        told = runtime.prompt(row.messages, row.tools)
    except Exception as error:  # a template may raise anything
        found.first_prompt = found.first_prompt or f"{row.where}: refused: {error}"
        return
    if told == row.prompt:
        found.same_prompts += 1
    elif not found.first_prompt:
        found.first_prompt = f"{row.where}: {_difference(row.prompt, told, tokenizer)}"


def _ask_reply(
    found: Measured, runtime: Runtime, tokenizer: Tokenizer, row: Row, one: Said, tokens: int
) -> None:
    stops = set(tokenizer.stop_ids)
    told = runtime.reply(row.prompt, tokens)
    end = next((place for place, token in enumerate(told) if token in stops), len(told))
    if told[:end] == one.reply:
        found.replies += 1
    elif not found.first_reply:
        found.first_reply = f"{row.where}: {_difference(one.reply, told[:end], tokenizer)}"


def _add(found: Measured, row: Row, one: Said, scores: Scores) -> None:
    """Add a row's share of the means."""
    total = found.positions

    found.kl += divergence(one.trained, scores) / total
    found.kl_base += divergence(one.base, scores) / total
    found.moved += kl(one.trained, one.base) / total
    likeliest = (
        scores.full.argmax(-1)
        if scores.full is not None
        else torch.tensor([max(told, key=told.__getitem__) for told in scores.likely])
    )
    found.differing += int((one.trained.argmax(-1) != likeliest).sum())
    found.nll_base -= float(_chosen(one.base, row).sum()) / total
    found.nll_adapter -= float(_chosen(one.trained, row).sum()) / total
    found.nll_export -= float(scores.chosen.sum()) / total


def _chosen(full: Tensor, row: Row) -> Tensor:
    return full.gather(1, torch.tensor(row.answer)[:, None])[:, 0]


def divergence(trained: Tensor, scores: Scores) -> float:
    """Sum over positions of KL(trained || export)."""
    if scores.full is not None:
        return kl(trained, scores.full)
    return sum(_coarse(one, likely) for one, likely in zip(trained, scores.likely, strict=True))


def kl(trained: Tensor, other: Tensor) -> float:
    """Sum over positions of KL(trained || other) of log-probabilities (n, V)."""
    width = min(trained.shape[1], other.shape[1])  # one may be padded
    told, given = (each[:, :width].double().log_softmax(-1) for each in (trained, other))
    return float((told.exp() * (told - given)).sum())


def _coarse(trained: Tensor, likely: Mapping[int, float]) -> float:
    """KL of the tokens in `likely` and of all others as one."""
    ids = torch.tensor(list(likely))
    given = torch.tensor(list(likely.values())).double()
    told = trained[ids].double()
    rest, left = (max(1 - float(each.exp().sum()), TINY) for each in (told, given))
    others = rest * (torch.tensor(rest).log() - torch.tensor(left).log())
    return float((told.exp() * (told - given)).sum() + others)


def _difference(wanted: Sequence[int], found: Sequence[int], tokenizer: Tokenizer) -> str:
    """The first token that is another."""
    place = next(
        (n for n, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]),
        min(len(wanted), len(found)),
    )
    told, ours = (_token(ids, place, tokenizer) for ids in (found, wanted))
    return f"token {place + 1} is {told}, in training {ours}"


def _token(ids: Sequence[int], place: int, tokenizer: Tokenizer) -> str:
    return repr(tokenizer.decode([ids[place]], skip_special=False)) if place < len(ids) else "none"


def _of(count: int, total: int, more: str = "") -> str:
    return f"{count} of {total} equal" + (f" ({more})" if more else "")
