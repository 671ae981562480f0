"""What is asked: a file of prompts, or the rows that the adapters' own runs held out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, DataError, GraftlabError, Problem, counted
from graftlab.generation.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.data.source import Dataset
    from graftlab.evaluation.metrics.base import Metric
    from graftlab.types import Conversation


@dataclass(slots=True)
class RunData:
    """The data that runs were trained on, read when it is first asked for."""

    runs: dict[str, Mapping[str, Any]]
    """Name of an adapter -> its run's configuration; {} where that is not known."""
    reserved: frozenset[str] = frozenset()
    _read: list[tuple[dict[str, Any], Dataset]] = field(default_factory=list)

    def held_out(self) -> list[Prompt]:
        """The rows that all runs held out, as prompts. Raises ConfigError where there are none."""
        advice = "give prompts=FILE"
        if not self.runs:
            raise ConfigError(f"There is no adapter whose held-out rows could be asked: {advice}.")
        found: list[tuple[str, list[Conversation]]] = []
        for name in self.runs:
            try:
                found.append((name, self._data(name).valid))
            except GraftlabError as error:
                raise ConfigError(
                    f"{name}: its held-out rows cannot be read ({error}): {advice}."
                ) from error
        first, rows = found[0]
        if not rows:
            raise ConfigError(f"{first} was trained without held-out rows: {advice}.")
        for other, its in found[1:]:
            if [row.messages for row in its] != [row.messages for row in rows]:
                raise ConfigError(
                    f"{first} and {other} held out other rows, and what one was trained on says "
                    f"nothing of it: {advice}."
                )
        return [Prompt(row.without_last_answer(), row.expected) for row in rows]

    def training(self) -> Iterator[Conversation]:
        """Every row that a run was trained on, as far as they are known and still there."""
        seen: list[int] = []
        for name in self.runs:
            try:
                data = self._data(name)
            except GraftlabError:
                continue
            if id(data) not in seen:
                seen.append(id(data))
                yield from data.train

    def _data(self, name: str) -> Dataset:
        from graftlab.data.source import DataSpec
        from graftlab.registry import restore

        described = self.runs[name].get("data")
        if not isinstance(described, Mapping):
            raise ConfigError("its run.yaml does not say what it was trained on")
        described = dict(described)
        for known, data in self._read:
            if known == described:
                return data
        data = restore(DataSpec, described, path="data").load(reserved=self.reserved)
        self._read.append((described, data))
        return data


def run_data(found: Mapping[str, TrainedModel], reserved: frozenset[str]) -> RunData:
    """The data of every adapter among `found`, none of it read yet."""
    from graftlab.files.paths import relocated

    runs: dict[str, Mapping[str, Any]] = {}
    for name, trained in found.items():
        if trained.adapter is not None:
            run = trained.adapter.run()
            runs[name] = relocated(run, trained.adapter.folder.parent)
    return RunData(runs, reserved)


def questions(
    prompts: str | None,
    data: RunData,
    metrics: Mapping[str, Metric],
    *,
    limit: int | None,
) -> list[Prompt]:
    """The prompts, each of which every metric can judge.

    Raises ConfigError or DataError, with all that is wrong.
    """
    if prompts is None:
        asked = data.held_out()[:limit]
    else:
        asked = read_prompts(prompts, reserved=data.reserved, limit=limit, ignore=_ignored(data))
    what = "the held-out rows" if prompts is None else f"prompts={prompts}"
    refuse_lacking(what, asked, metrics)
    return asked


def refuse_lacking(what: str, asked: Sequence[Prompt], metrics: Mapping[str, Metric]) -> None:
    """Raise DataError naming every prompt that a metric cannot judge; `what` they are, in words."""
    problems = list(_lacking(asked, metrics))
    if problems:
        lacking = len({problem.where for problem in problems})
        raise DataError(f"{what}: {counted(lacking, 'prompt')} cannot be judged:", problems)


def _lacking(asked: Iterable[Prompt], metrics: Mapping[str, Metric]) -> Iterator[Problem]:
    for prompt in asked:
        lacks: dict[str, list[str]] = {}
        for name, metric in metrics.items():
            if (reason := metric.lacks(prompt)) is not None:
                lacks.setdefault(reason, []).append(name.replace("_", "-"))
        for reason, names in lacks.items():
            yield Problem(prompt.conversation.where, f"{reason}, for {' and '.join(names)}")


def _ignored(data: RunData) -> Collection[str]:
    """Keys that every run passed over in its own rows."""
    found: Sequence[Any] = [run.get("data") for run in data.runs.values()]
    keys = [set(one.get("ignore_keys") or ()) for one in found if isinstance(one, Mapping)]
    return set.intersection(*keys) if keys else set()
