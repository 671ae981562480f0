"""A sweep's budget: every job estimated before the first starts, quickly; what is paid counts."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from chats import chats
from graftlab.cli.compose import build, compose
from graftlab.errors import ConfigError
from graftlab.planning.budget import refuse_sweep_over_budget
from graftlab.planning.estimate import estimate_run
from graftlab.registry import dump


def spec_of(*words: str) -> Any:
    return build(compose("train", ["machine=h100", "run_dir=.", *words])).training()


def hours_of(specs: Sequence[Any]) -> float:
    return sum(bill.hours for spec in specs if (bill := estimate_run(spec).bill) is not None)


def limited(specs: Sequence[Any], hours: float) -> Sequence[Any]:
    for spec in specs:
        spec.budget.max_hours = hours
    return specs


def test_the_sum_is_refused_though_each_job_is_within() -> None:
    specs = [spec_of(f"epochs={n}") for n in (1, 2, 3)]
    total = hours_of(specs)
    refuse_sweep_over_budget(limited(specs, total * 1.01))
    with pytest.raises(ConfigError) as error:
        refuse_sweep_over_budget(limited(specs, total * 0.9))
    assert f"{total:.2g} h for the 3 jobs" in str(error.value)
    assert re.search(r"the first 2, or all with (89|90)% of their steps", str(error.value))
    with pytest.raises(ConfigError, match=r"not even one\. "):
        refuse_sweep_over_budget(limited(specs, total / 1000))


def test_money_counts_too() -> None:
    specs = [spec_of("budget.max_cost=1e-6"), spec_of("seed=1")]
    with pytest.raises(ConfigError, match=r"budget.max_cost=1e-06 .* USD for the 2 jobs"):
        refuse_sweep_over_budget(specs)


def test_without_a_budget_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftlab.planning import budget

    monkeypatch.setattr(budget, "question_of", lambda *_, **__: pytest.fail("looked"))
    refuse_sweep_over_budget([spec_of()])
    refuse_sweep_over_budget([])


def test_an_unknown_rate_is_named() -> None:
    spec = spec_of("budget.max_hours=1", "machine.achieved.bf16=null", "machine.peak.bf16=null")
    with pytest.raises(ConfigError, match=r"machine\.achieved\.bf16"):
        refuse_sweep_over_budget([spec])


def leave_run(folder: Path, spec: Any, *, step: int | None) -> None:
    """What a run leaves behind: finished, or with a checkpoint of `step`."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(dump(spec)))
    if step is None:
        (folder / "result.json").write_text("{}")
    else:
        (folder / "checkpoints" / f"step-{step:08d}.ckpt").touch()


def test_what_an_earlier_start_has_done_is_paid(tmp_path: Path) -> None:
    from graftlab.training.checkpoint import CheckpointStore

    words = [f"lr={lr}" for lr in ("1e-3", "2e-3", "3e-3")]
    specs = [spec_of(word, "resume=auto") for word in words]
    total = hours_of(specs)
    limited(specs, total / 2)
    with pytest.raises(ConfigError, match="would be passed"):
        refuse_sweep_over_budget(specs, home=tmp_path)
    leave_run(tmp_path / "0", specs[0], step=None)
    leave_run(tmp_path / "1", specs[1], step=200)
    last = CheckpointStore(tmp_path / "1" / "checkpoints").last()
    assert last is not None
    assert last.step == 200
    refuse_sweep_over_budget(specs, home=tmp_path)
    anew = limited([spec_of(word) for word in words], total / 2)
    with pytest.raises(ConfigError, match="would be passed"):  # not resumed: paid again
        refuse_sweep_over_budget(anew, home=tmp_path)
    with pytest.raises(ConfigError, match="would be passed"):
        refuse_sweep_over_budget(specs, home=tmp_path / "nowhere")


def test_a_hundred_jobs_read_their_data_once(
    qwen2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftlab.planning import lookup_cache

    read = []
    real = lookup_cache.read_documents
    monkeypatch.setattr(lookup_cache, "read_documents", lambda *a: read.append(a) or real(*a))
    data = chats(tmp_path / "chats.jsonl", 60)
    specs = [
        spec_of(
            *("model=hf", f"model.path={qwen2_folder}", "data=jsonl", f"data.train={data}"),
            *(f"lora.rank={4 + number % 10}", "budget.max_hours=1e-9"),
        )
        for number in range(10)
    ] * 10
    for seed, spec in enumerate(specs):
        spec.seed = seed
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="100 jobs"):
        refuse_sweep_over_budget(specs)
    assert time.perf_counter() - begun < 20  # measured: well under a second
    assert len(read) == 1
