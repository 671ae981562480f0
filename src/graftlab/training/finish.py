"""The end of a run: adapter folders, samples, and `result.json` as the very last file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from graftlab.console import console, say
from graftlab.errors import GraftlabError
from graftlab.files.building import building
from graftlab.files.checksums import write_checksums
from graftlab.files.paths import absolute
from graftlab.files.writing import write_atomic, write_json
from graftlab.progress import Progress, Row
from graftlab.registry import dump
from graftlab.terminal import printable
from graftlab.tracking.card import card
from graftlab.tracking.folder import RunFolder
from graftlab.tracking.history import PREFIX
from graftlab.tracking.result import Result, peak_rss_mb, show_result
from graftlab.training.checkpoint import Saved
from graftlab.training.device import device_name
from graftlab.training.whole import best_whole

if TYPE_CHECKING:
    from pathlib import Path

    from graftlab.data.source import DataSpec
    from graftlab.text.encode import TokenSet
    from graftlab.training.fit import Fit
    from graftlab.training.setup import Data


@dataclass(kw_only=True, slots=True)
class Finish:
    """Turns the last and the best checkpoint into what a finished run leaves behind."""

    fit: Fit
    folder: RunFolder
    data: Data
    compiled: bool
    writes: bool
    """Whether this process is the one that writes."""
    shows: bool = True
    """Whether the last screen is shown."""

    def run(self, *, setup_seconds: float, started: float) -> Result:
        """Save the final and the best adapter, sample the best one, write the result last."""
        fit = self.fit
        if self.writes:
            fit.store.prune(fit.spec.checkpoint.keep, ends=True)
        last = fit.store.last()
        assert last is not None, "a run ends with a checkpoint"
        best = best_whole(fit.store, tell=self.writes)
        fit.restore(last)
        result = self._result(best)
        self._tell_unranked(best)
        if self.writes:
            self._save(self.folder.final, result)
            for writer in fit.writers:
                writer.after_run()
        fit.restore_adapter(best)
        result = replace(result, strengths=self._strengths())
        if fit.book.conversations:  # by every process: a sharded base answers only together
            shown = self.writes and self.shows and fit.spec.callbacks.progress
            with Progress("sample", console=console(), shown=shown) as progress:
                fit.book.on_reply = lambda *numbers: progress.show([Row(*numbers)])
                fit.sampler.draw(best.step)
        if not self.writes:
            return result
        self._save(self.folder.adapter, result)
        if fit.book.rows:
            fit.book.write(self.folder.path / "samples.md")
            for tracker in fit.trackers:
                tracker.samples(fit.book.rows)
        for tracker in fit.trackers:
            tracker.conclude(result)
        self._write_times(setup_seconds, started)
        fit.history.write_json()
        self.folder.write_checksums(result)
        result.write(self.folder.path / "result.json")
        if self.shows:
            units = fit.spec.objective.METRICS
            show_result(result, fit.book.last(), self._places(), units=units)
        return result

    def _result(self, best: Saved) -> Result:
        fit, recorder = self.fit, self.fit.recorder
        rows, ranking = fit.history.rows, recorder.ranking
        row = next((row for row in rows if row["step"] == best.step), {})
        before = next((row for row in rows if row["step"] == 0), {})
        return Result(
            score=row.get("valid_loss"),
            baseline=recorder.baseline,
            interval=recorder.intervals.get(best.step),
            valid_documents=recorder.valid_documents,
            adapter=str(self.folder.adapter),
            steps=recorder.step,
            best_step=best.step,
            epochs=recorder.step / fit.plan.steps_per_epoch,
            tokens=recorder.tokens,
            trained_tokens=recorder.trained_tokens,
            tokens_per_second=recorder.tokens_per_second,
            packing_density=fit.plan.packing_density,
            peak_rss_mb=peak_rss_mb(),
            trainable_parameters=fit.module.adapter.num_trainable,
            precision=fit.precision.name,
            compiled=self.compiled,
            stopped=recorder.stop_reason,
            out_of_minutes=recorder.late,
            measure=fit.spec.objective.measure(),
            metrics={name: n for name, n in row.items() if name.startswith(PREFIX)},
            base_metrics={name: n for name, n in before.items() if name.startswith(PREFIX)},
            ranked_by=ranking.by,
            better=ranking.better,
            ranked=row.get(ranking.column),
        )

    def _tell_unranked(self, best: Saved) -> None:
        """Say that the adapter is the last one because none kept to what the objective asks."""
        key, ranking = self.fit.spec.objective.key_needing_validation(), self.fit.recorder.ranking
        if self.writes and not ranking.is_loss and best.measured is None:
            say(
                f"! No checkpoint has {ranking.by} to be ranked by: the adapter is that of step "
                f"{best.step}."
            )
            return
        if self.writes and key is not None and best.valid_loss is None:
            say(
                f"! No validated adapter kept to objective.{key}: the one of step {best.step}, the "
                "last, is taken."
            )

    def _strengths(self) -> list[dict[str, float]]:
        """The best adapter validated at the strengths that the objective wants to see."""
        fit, found = self.fit, []
        for factor in fit.spec.objective.strengths() if fit.plan.valid is not None else ():
            numbers = fit.at_strength(factor).numbers
            loss = numbers.pop("loss")
            gain = (fit.recorder.baseline or 0.0) - loss
            found.append({"strength": factor, "loss": loss, "gain": gain, **numbers})
        return found

    def _save(self, target: Path, result: Result) -> None:
        """One adapter folder: its files, the tokenizer and template, run.yaml and card.md."""
        fit = self.fit
        base, stored = fit.module.policy.base, fit.spec.model.storage.title
        with building(target) as folder:
            fit.module.adapter.save(folder)
            self.data.tokenizer.save(folder)
            config = yaml.safe_dump(absolute(dump(fit.spec)), sort_keys=False, allow_unicode=True)
            write_atomic(folder / "run.yaml", config)
            facts: dict[str, Any] = {
                "base fingerprint": base.fingerprint,
                **({"base stored in": stored} if stored else {}),
                "training data": _named(self.data.train),
                **({"validation data": _named(self.data.valid)} if self.data.valid else {}),
                **_files(fit.spec.data),
                "device": device_name(fit.device),
                "precision": f"{fit.precision.name} ({fit.precision.reason})",
            }
            write_atomic(folder / "card.md", card(result, base=base.source, facts=facts))
            write_checksums(folder)

    def _write_times(self, setup_seconds: float, started: float) -> None:
        recorder = self.fit.recorder
        write_json(
            self.folder.path / "time_metrics.json",
            {
                "setup_seconds": setup_seconds,
                "train_seconds": recorder.seconds,
                "total_seconds": time.perf_counter() - started,
                "steps_per_second": recorder.steps_per_second,
                "tokens_per_second": recorder.tokens_per_second,
                "share": recorder.mean_share,
            },
        )

    def _places(self) -> list[str]:
        path = self.folder.path
        samples = ["samples.md"] if self.fit.book.rows else []
        return [
            f"adapter:  {self.folder.adapter}",
            f"run:      {path} ({', '.join(['train_log.csv', *samples, 'result.json'])})",
            *(tracker.where for tracker in self.fit.trackers),
            f'try it:   graftlab sample adapter={path} prompt="..."',
        ]


def _files(data: DataSpec) -> dict[str, str]:
    """The names of the data's files, without their folders, as lines of the card."""
    with suppress(GraftlabError, OSError):  # moved since they were read: the hashes remain
        train, valid = data.files()
        found = {"training files": train, "validation files": valid}
        return {what: _names(files) for what, files in found.items() if files}
    return {}


def _names(files: Sequence[Path], *, most: int = 5) -> str:
    names = [printable(file.name, one_line=True) for file in files[:most]]
    more = [f"and {len(files) - most} more"] if len(files) > most else []
    return ", ".join([*names, *more])


def _named(tokens: TokenSet) -> str:
    return f"{len(tokens)} documents, hash {tokens.fingerprint}"
