"""`result.json`: what a run achieved and what it cost; and how that is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.console import console, new_table
from graftlab.files.checksums import DamagedError, check_member
from graftlab.files.reading import read_json
from graftlab.files.writing import write_atomic
from graftlab.tracking.history import PREFIX
from graftlab.tracking.ranking import LESS, LOSS, Ranking

if TYPE_CHECKING:
    from rich.table import Table

ENOUGH_DOCUMENTS = 30
"""Fewer validation documents than this are called few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The numbers of a finished run; losses are in what `measure` says."""

    score: float | None
    """Validation loss of the best adapter, over the whole set; null without validation data."""
    baseline: float | None
    """The base's own validation loss."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of `score - baseline`, paired over the validation documents."""
    valid_documents: int | None = None
    """How many documents both losses are over."""
    adapter: str
    """Folder of the best adapter."""
    steps: int
    """Optimizer steps taken."""
    best_step: int
    """The step `adapter` is from."""
    epochs: float
    """Passes over the training data."""
    tokens: int
    """Training tokens processed, without padding."""
    trained_tokens: int
    """Labelled tokens among them."""
    tokens_per_second: float
    """Of training steps only, without the first ones, which compile."""
    packing_density: float
    """Share of row capacity filled by documents."""
    peak_rss_mb: float
    """Largest resident memory of the process."""
    trainable_parameters: int
    precision: str
    compiled: bool
    stopped: str | None
    """Why the run ended before its last step; null if it did not."""
    out_of_minutes: float | None = None
    """The `max_minutes` that ended it: resumed with a longer one, or with none, it goes on."""
    measure: str = "nats per trained token"
    """What the losses are."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What else is measured of the held-out rows, at the best step: `valid/NAME` -> value."""
    base_metrics: dict[str, float] = field(default_factory=dict)
    """The same of the base alone, as far as it was measured."""
    ranked_by: str = LOSS
    """What the best step is the best by: loss, or a measure such as exact-match/pct_exact."""
    better: str = LESS
    """Which way of it is better: more or less."""
    ranked: float | None = None
    """Its value at the best step."""
    strengths: list[dict[str, float]] = field(default_factory=list)
    """The best adapter at several strengths, where the objective asks for it: `strength` (1 is as
    trained), `loss`, `gain` (the base's validation loss minus it), and what else is reported."""

    @property
    def ranking(self) -> Ranking:
        return Ranking(self.ranked_by, self.better)

    @property
    def rank(self) -> float | None:
        """What runs are compared by, as a number of which less is better."""
        if self.ranking.is_loss or self.ranked is None:
            return self.score if self.ranking.is_loss else None
        return self.ranking.key(self.ranked)

    def write(self, path: Path) -> None:
        write_atomic(path, self.text())

    def text(self) -> str:
        """The content of `result.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Result:
        """Raises DamagedError for a file that is not as it was written."""
        check_member(path)
        try:
            data = read_json(path)
            if data.get("interval") is not None:
                low, high = data["interval"]  # JSON knows no tuples
                data["interval"] = (low, high)
            return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path} is not as it was written: {error}") from error


def forget_peak() -> None:
    """Count the peak of memory anew, where the system can (Linux): a process may train several."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_mb() -> float:
    """Resident set of this process now, in MiB; 0 where the system does not say."""
    return _status("VmRSS") or 0.0


def peak_rss_mb() -> float:
    """Largest resident set of this process since `forget_peak`, else since it began, in MiB."""
    if (peak := _status("VmHWM")) is not None:
        return peak  # `ru_maxrss` would be carried over from whoever started the program
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _status(name: str) -> float | None:
    """A size of `/proc/self/status` in MiB; None where there is none."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 2**10
    return None


def show_result(
    result: Result,
    samples: Sequence[dict[str, Any]],
    lies: Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
) -> None:
    """The last screen: loss before and after, the same prompts answered twice, where things are.

    `units` are those of the metrics, by name without `valid/`.
    """
    from rich.table import Table

    console().print(_losses(result))
    if (surety := how_sure(result)) is not None:
        console().print(surety, highlight=False)
    if result.metrics:
        console().print(_metrics(result.metrics, result.base_metrics, units or {}), highlight=False)
    if not result.ranking.is_loss and result.ranked is not None:
        told = f"best by {result.ranked_by}: {result.ranked:.3f}"
        console().print(f"{told} at step {result.best_step}", highlight=False)
    if result.strengths:
        console().print(_strength_table(result.strengths))
    for sample in samples:
        table = Table(title=_short(sample["prompt"]), title_justify="left", show_lines=True)
        for who in ("base", "adapter", "expected"):
            table.add_column(who, ratio=1)
        table.add_row(*(_short(sample[who]) for who in ("base", "adapter", "expected")))
        console().print(table)
    if result.stopped:
        console().print(f"stopped early: {result.stopped}", highlight=False)
    for line in lies:
        console().print(line, highlight=False, soft_wrap=True)


def _losses(result: Result) -> Table:
    """Base and adapter in numbers; of a run without validation only what it took."""
    took = {
        "best step": f"{result.best_step} of {result.steps}",
        "tokens/s": f"{result.tokens_per_second:,.0f}",
        "peak memory": f"{result.peak_rss_mb:,.0f} MiB",
    }
    if result.score is None and result.baseline is None:
        took = {"last step": took.pop("best step"), **took}
        losses, title = {}, "without a validation loss"
    else:
        change = "-"
        if result.score is not None and result.baseline:
            difference = result.score - result.baseline
            change = f"{difference:+.3f} ({result.score / result.baseline - 1:+.0%})"
        losses = {"base": _loss(result.baseline), "tuned": _loss(result.score), "change": change}
        title = f"validation loss ({result.measure})"
    table = new_table(title, [*losses, *took])
    table.add_row(*losses.values(), *took.values())
    return table


def _metrics(
    metrics: Mapping[str, float], base: Mapping[str, float], units: Mapping[str, str]
) -> Table:
    """A row for each metric; NAME_low and NAME_high are the interval of NAME."""
    found = {name.removeprefix(PREFIX): value for name, value in metrics.items()}
    ends = {end for name in found for end in (f"{name}_low", f"{name}_high")}
    spread = ["95 % interval"] if ends & found.keys() else []
    columns = ("", *(["base"] if base else []), "value", *spread, "unit")
    table = new_table("also of the held-out rows", columns, left=("", "unit"), box=None)
    for name, value in found.items():
        if name in ends:
            continue
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        told = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        interval = [told] if spread else []
        known = base.get(f"{PREFIX}{name}")
        alone = ["" if known is None else f"{known:.3f}"] if base else []
        unit = units.get(name, "")
        table.add_row(name.replace("_", " "), *alone, f"{value:.3f}", *interval, unit)
    return table


STRENGTH_FORMATS = {"strength": "{:.2f}", "gain": "{:+.4f}"}


def _strength_table(strengths: Sequence[dict[str, float]]) -> Any:
    """What is gained against how far the model moves, as the adapter is made stronger."""
    from rich.table import Table

    table = Table(title="adapter strengths (nats per token)", title_justify="left")
    for heading in strengths[0]:
        table.add_column(heading, justify="right")
    for row in strengths:
        table.add_row(*(STRENGTH_FORMATS.get(name, "{:.4f}").format(n) for name, n in row.items()))
    return table


def how_sure(result: Result) -> str | None:
    """The interval of the change in words; None where base and adapter were not compared."""
    if result.score is None or result.baseline is None or result.valid_documents is None:
        return None
    over = few_documents(result.valid_documents) or f"over {result.valid_documents} documents"
    if result.interval is None:
        return f"change: no interval, {over}"
    low, high = result.interval
    open_ = "; it may be none" if low <= 0 <= high else ""
    return f"change: {low:+.3f} to {high:+.3f} (95 % interval, paired), {over}{open_}"


def few_documents(number: int) -> str | None:
    """What is said of a comparison over so few documents; None of enough."""
    if number >= ENOUGH_DOCUMENTS:
        return None
    noun = "document" if number == 1 else "documents"
    return f"over {number} {noun}: too few to tell small changes from chance"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(text: str, *, limit: int = 600) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
