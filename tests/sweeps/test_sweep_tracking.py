"""What W&B and TensorBoard know of a sweep, read back from their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.cli.main import main
from graftlab.sweeps.ledger import Ledger
from sweep_runs import small_run
from wandb_files import history, runs

LINE = [
    *("-m", "lr=1e-3,5e-3,2e-2", "model=hf", "data=jsonl", "precision=fp32", "trainer=cpu"),
    *("packing.max_length=80", "epochs=2", "compile=off", "callbacks.samples.prompts=0"),
    *("schedule.warmup_ratio=null", "schedule.warmup_steps=2", "logger=[wandb,tensorboard]"),
    *("launcher=local", "launcher.slots=1", "launcher.threads=1", "logger.wandb.tags=[mine]"),
    *("sweep.pruner=asha", "sweep.first_rung=0.4", "sweep.name=seen"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """The folder of a sweep that has pruned some of its jobs, and promoted others."""
    root = tmp_path_factory.mktemp("tracking")
    base = small_run(root)
    files = [f"model.path={base.model.path}"]
    files += [f"data.train={base.data.train}", f"data.valid={base.data.valid}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["train", *LINE, *files]) == 0
    return root / "multirun" / "seen"


@pytest.mark.slow
def test_wandb_has_a_run_for_each_job_and_knows_which_were_pruned(sweep: Path) -> None:
    jobs = Ledger(sweep).jobs()
    states = [job.state for job in jobs]
    assert {"done", "pruned"} <= set(states)
    starts = {
        job.number: len(list((sweep / job.folder).glob("wandb/offline-run-*"))) for job in jobs
    }
    assert any(starts[job.number] > 1 for job in jobs if job.state == "done")  # set aside, then not
    for job in jobs:
        folder = sweep / job.folder
        ((identifier, run),) = runs(folder).items()
        assert identifier == (folder / "wandb_id.txt").read_text()
        assert (run["group"], run["job_type"]) == ("seen", "sweep")
        assert run["name"] == f"lr={job.swept['lr']}"
        pruned = job.state == "pruned"
        assert run["summary"]["pruned"] is pruned
        assert run["tags"] == ["mine", "seen", *(["pruned"] if pruned else [])]
        assert run["summary"].get("best_valid_loss") == (None if pruned else job.score)
        (steps,) = history(folder).values()
        assert max(steps) == job.progress["step"]


@pytest.mark.slow
def test_tensorboard_has_hyperparameters_for_each_job(sweep: Path) -> None:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(sweep))
    multiplexer.Reload()
    tags = multiplexer.PluginRunToTagToContent("hparams")

    def having(tag: str) -> set[str]:
        return {run.partition("/")[0] for run, of_run in tags.items() if tag in of_run}

    jobs = Ledger(sweep).jobs()
    assert having("_hparams_/session_start_info") == {job.folder for job in jobs}
    assert having("_hparams_/session_end_info") == {
        job.folder for job in jobs if job.state == "done"
    }
