"""`callbacks=[default,evaluate]`: metrics of replies in the log, and what goes by them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters.artifact import find_artifact
from graftlab.adapters.attach import load_trained
from graftlab.errors import ConfigError, DataError, Interrupted
from graftlab.evaluation.callback import Evaluate
from graftlab.evaluation.metrics.base import Metric
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.evaluation.metrics.exact_match import ExactMatch
from graftlab.evaluation.metrics.regex import Regex
from graftlab.evaluation.metrics.style import Style
from graftlab.generation.decode import generate
from graftlab.generation.sampling import Generation
from graftlab.models.cache import acquire
from graftlab.registry import dump, restore
from graftlab.sweeps.ledger import Ledger
from graftlab.tracking.history import History
from graftlab.tracking.ranking import Ranking, ranking_by
from graftlab.tracking.result import Result
from graftlab.training.callbacks.early_stopping import EarlyStopping
from graftlab.training.checkpoint import Checkpointing, CheckpointStore
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.watch import Callbacks, Samples
from joint_runs import together
from left_behind import left_behind
from sweep_runs import jobs_of, sweep_here
from training_spec import small_root, small_spec

BANNED = "avg_banned_hits"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_root(tmp_path_factory.mktemp("training"))


@pytest.fixture
def spec(root: Path, tmp_path: Path) -> TrainSpec:
    small = replace(small_spec(root), generation=Generation(max_new_tokens=8), lr=2e-2)
    return replace(small, run_dir=str(tmp_path / "run"))


def with_metrics(spec: TrainSpec, by: str, **changes: Any) -> TrainSpec:
    metrics: dict[str, Metric] = {
        "style": Style(banned=list("aeinorst")),
        "regex": Regex(pattern="[aeiou].*[aeiou]"),
        "exact_match": ExactMatch(),
    }
    name = by.partition("/")[0].replace("-", "_")
    asks = Evaluate(metrics=Metrics(chosen={name: metrics[name]}), **changes)
    callbacks = Callbacks(samples=Samples(prompts=0), chosen={"evaluate": asks})
    return replace(spec, callbacks=callbacks, checkpoint=Checkpointing(by=by, keep="all"))


def test_what_is_logged_is_what_the_adapter_says(
    spec: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(with_metrics(spec, f"style/{BANNED}"))
    assert "samples.md" not in capsys.readouterr().out, "no prompts, no such file"
    rows = History(tmp_path / "run" / "train_log.csv").rows
    column = f"valid/style/{BANNED}"
    measured = {row["step"]: row[column] for row in rows if column in row}
    per_epoch = result.steps // 2
    assert set(measured) == {0, per_epoch, 2 * per_epoch}, "the base, and every epoch"
    assert len(set(measured.values())) > 1, "training changes the replies"
    assert not any("per_s" in name for name in rows[0]), "of time, which no two runs share"

    least = min(value for step, value in measured.items() if step)
    assert result.ranked == least == result.rank
    assert result.metrics[column] == least
    assert result.base_metrics[column] == measured[0]
    assert measured[result.best_step] == least
    row = next(row for row in rows if row["step"] == result.best_step)
    assert result.score == row["valid_loss"], "the loss stands beside"
    assert Result.read(tmp_path / "run" / "result.json") == result

    found = find_artifact(str(tmp_path / "run")).on_base(spec.model, advice="")
    with acquire(spec.model, dtype=torch.float32, device=torch.device("cpu")) as base:
        tokenizer = found.load_tokenizer()
        load_trained(base, found, dtype=torch.float32)
        asked = [one.without_last_answer() for one in spec.data.load().valid]
        texts = [generate(base, tokenizer, one, spec.generation).text for one in asked]
    hits = [sum(text.count(letter) for letter in "aeinorst") for text in texts]
    assert sum(hits) / len(hits) == pytest.approx(least)


def test_names_of_checkpoints_tell_what_ranks_them(spec: TrainSpec, tmp_path: Path) -> None:
    result = run(with_metrics(spec, "regex", every_steps=3))
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    rows = History(tmp_path / "run" / "train_log.csv").rows
    column = "valid/regex/pct_match"
    shares = {row["step"]: row[column] for row in rows if column in row}
    assert shares.keys() == {*range(0, result.steps, 3), result.steps // 2, result.steps}
    assert (result.ranked_by, result.better) == ("regex/pct_match", "more")
    highest = max(share for step, share in shares.items() if step)
    assert result.ranked == highest
    assert result.rank == -highest
    first = min(step for step, share in shares.items() if step and share == highest)
    assert store.ranked()[0].step == result.best_step == first, "the earliest of equals"
    for saved in store.saved():
        assert saved.measured == -shares[saved.step]
        assert f"-more-{shares[saved.step]:.6f}.ckpt" in saved.path.name


def test_the_checkpoints_that_are_kept_are_the_best_by_the_measure(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    by = Ranking("style/x", "more")
    for step, (loss, value) in enumerate([(1.0, 3.0), (0.5, 1.0), (0.7, 2.0), (0.1, None)], 1):
        row = {"valid_loss": loss} | ({} if value is None else {"valid/style/x": value})
        path = store.path(step, row, by)
        store.partial(path).write_bytes(b"x")
        store.publish(path)
    assert [saved.step for saved in store.ranked()] == [1, 3, 2, 4]
    store.prune(2, ends=True)
    assert [saved.step for saved in store.saved()] == [1, 3, 4]


def test_jobs_of_a_sweep_are_compared_and_pruned_by_the_measure(
    spec: TrainSpec, tmp_path: Path
) -> None:
    """Two that train together; a rung lies inside the first epoch."""
    own = with_metrics(spec, "regex")
    own.trainer.accelerator = "cpu"
    folder = tmp_path / "sweep"
    drafts = jobs_of(own, [2e-2, 1e-3])
    ended = sweep_here(folder, drafts, together=2, pruner="asha", reduction=2, first_rung=0.4)
    jobs, rungs = ended.jobs, Ledger(folder).rungs()
    assert {job.state for job in jobs} <= {"done", "pruned", "paused"}
    assert any(job.state == "done" for job in jobs)
    for job in jobs:
        rows = History(folder / job.folder / "train_log.csv").rows
        told = {row["step"]: row["rung/regex/pct_match"] for row in rows if "rung_loss" in row}
        reached = {step: rung.losses for (_, step), rung in rungs.items()}
        assert told, "the measure stands beside the loss"
        for step, share in told.items():
            assert reached[step][job.number] == -share
        if job.state == "done":
            result = Result.read(folder / job.folder / "result.json")
            assert result.ranked is not None
            assert job.score == -result.ranked
            assert result.score is not None, "the loss stands beside"


@pytest.mark.slow
def test_together_replies_are_measured_as_alone(spec: TrainSpec, tmp_path: Path) -> None:
    own = with_metrics(spec, "style")
    own.trainer.accelerator = "cpu"
    specs = [replace(own, lr=rate) for rate in (2e-2, 1e-2)]
    for ended in together(specs, tmp_path):
        assert ended.error is None
    column = f"valid/style/{BANNED}"
    for place, alone in enumerate(specs):
        run(replace(alone, run_dir=str(tmp_path / f"alone{place}")))
        ours, theirs = (
            [
                row[column]
                for row in History(tmp_path / name / "train_log.csv").rows
                if column in row
            ]
            for name in (str(place), f"alone{place}")
        )
        assert ours == theirs
        assert len(ours) == 3


def test_early_stopping_goes_by_the_measure(spec: TrainSpec, tmp_path: Path) -> None:
    changed = with_metrics(replace(spec, lr=1e-9, epochs=6), "style")
    changed.callbacks.chosen["early_stopping"] = EarlyStopping(patience=2)
    result = run(changed)
    told = f"early stopping: no better style/{BANNED} in 2 evaluations"
    assert result.stopped == told
    assert result.epochs == 3, "nothing changes, so the first stays the best"


def test_stopped_and_resumed_equals_never_stopped(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose masks would differ if decoding drew from the process's numbers."""
    from graftlab.training.callbacks import checkpointer

    spec = with_metrics(spec, "style", every_steps=2)
    spec.lora.dropout, spec.generation.temperature = 0.3, 1.0
    data = dump(replace(spec, checkpoint=replace(spec.checkpoint, every_steps=1)))
    run(restore(TrainSpec, {**data, "run_dir": str(tmp_path / "whole")}))

    real = checkpointer.Checkpointer.after_step

    def stop(self: Any, trainer: Any, module: Any) -> None:
        real(self, trainer, module)
        if trainer.global_step == 3:
            raise Interrupted("stopped", 130)

    monkeypatch.setattr(checkpointer.Checkpointer, "after_step", stop)
    with pytest.raises(Interrupted):
        run(restore(TrainSpec, {**data, "run_dir": str(tmp_path / "killed")}))
    monkeypatch.undo()
    torch.manual_seed(99)
    run(restore(TrainSpec, {**data, "run_dir": str(tmp_path / "killed"), "resume": "auto"}))
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")

    # Nor does a run without any metric train otherwise.
    plain = {**data, "run_dir": str(tmp_path / "plain"), "checkpoint": dump(Checkpointing())}
    plain["callbacks"] = {**data["callbacks"], "evaluate": None}
    run(restore(TrainSpec, plain))
    for name in ("loss", "valid_loss", "grad_norm"):
        ours, theirs = (
            [row.get(name) for row in History(tmp_path / which / "train_log.csv").rows]
            for which in ("whole", "plain")
        )
        assert [x for x in ours if x is not None][-1] == [x for x in theirs if x is not None][-1]


def test_what_cannot_be_measured_is_refused_before_training(
    spec: TrainSpec, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "One?"}, {"prompt": "Two?", "reference": "2"}, {"prompt": "Three?"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = with_metrics(spec, "exact-match", prompts=str(file))
    with pytest.raises(DataError, match="2 prompts cannot be judged") as refused:
        run(changed)
    assert "no `reference`, nor an answer at its end, for exact-match (2 rows" in str(refused.value)
    assert not (tmp_path / "run" / "train_log.csv").exists()
    changed.callbacks.chosen["evaluate"] = Evaluate()
    changed.checkpoint.by = "loss"
    with pytest.raises(ConfigError, match="has no metric"):
        run(replace(changed, run_dir=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("exact-match", "is measured by no callback"),
        ("style/avg_words", "neither more nor less"),
        ("style/avg_banned_hit", "Did you mean `style/avg_banned_hits`"),
        ("failures", "several measures: give one of failures/"),
    ],
)
def test_what_steps_cannot_be_ranked_by(spec: TrainSpec, by: str, said: str) -> None:
    from graftlab.evaluation.metrics.failures import Failures

    chosen: dict[str, Metric] = {"style": Style(), "failures": Failures()}
    own = Evaluate(metrics=Metrics(chosen=chosen)) if by != "exact-match" else None
    callbacks = Callbacks(chosen={"evaluate": own} if own else {})
    with pytest.raises(ConfigError, match=re.escape(said)):
        replace(spec, callbacks=callbacks, checkpoint=Checkpointing(by=by))


def test_early_stopping_by_what_is_measured_once_is_refused(spec: TrainSpec) -> None:
    chosen = {
        "evaluate": Evaluate(metrics=Metrics(chosen={"style": Style()}), every_epochs=None),
        "early_stopping": EarlyStopping(),
    }
    with pytest.raises(ConfigError, match=r"waits for style/avg_banned_hits, which is only"):
        replace(spec, callbacks=Callbacks(chosen=chosen), checkpoint=Checkpointing(by="style"))


def test_a_metric_by_its_name() -> None:
    measures = {"number/pct_right": "more", "style/avg_words": None, "style/hits": "less"}
    assert ranking_by("number", measures, key="k") == Ranking("number/pct_right", "more")
    assert ranking_by("style", measures, key="k") == Ranking("style/hits", "less")
    assert ranking_by("style/hits", measures, key="k").column == "valid/style/hits"
