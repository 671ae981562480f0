"""Run folders, sweeps and resuming, with tasks that only note what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from graftlab.cli.space import corners, swept_texts
from graftlab.registry import dump
from graftlab.sweeps.identity import sweep_name
from graftlab.sweeps.ledger import Ledger
from graftlab.sweeps.space import in_order, without_idle
from graftlab.tracking.folder import RunFolder

if TYPE_CHECKING:
    from conftest import Doors


def pretend(spec: object, folder: Path, *, finished: bool = False) -> None:
    """Leave in `folder` what a run of `spec` would."""
    RunFolder(folder).take()
    (folder / "run.yaml").write_text(yaml.safe_dump(dump(spec)), encoding="utf-8")
    if finished:
        (folder / "result.json").write_text("{}", encoding="utf-8")


def test_every_run_has_a_folder_of_its_own(doors: Doors) -> None:
    for _ in range(2):
        assert doors.train().code == 0
    first, second = (Path(spec.run_dir) for spec in doors.specs)
    assert first != second
    assert first.parent.parent == doors.folder / "outputs"
    assert (first / ".hydra" / "config.yaml").is_file()


def test_sample_and_inspect_leave_nothing_behind(doors: Doors) -> None:
    before = sorted(doors.folder.rglob("*"))
    assert doors.knock("sample", "model=tiny", "prompt=Hi").code == 0
    data = [f"model.path={doors.model}", "data=jsonl", "data.train=chats.jsonl"]
    assert doors.knock("inspect", "model=hf", *data).code == 0
    assert sorted(doors.folder.rglob("*")) == before
    assert len(doors.specs) == 2


def test_jobs_of_a_sample_write_beside_each_other(doors: Doors) -> None:
    line = ["model=tiny", "prompt=Hi", "generation.max_new_tokens=4,8", "out=a/said.jsonl"]
    assert doors.knock("sample", "-m", *line, "seed=1").code == 2  # and no key of it is made up
    assert doors.knock("sample", "-m", *line, "generation.seed=1,2").code == 0
    assert [Path(spec.out) for spec in doors.specs] == [
        Path(f"a/said-generation.max_new_tokens={tokens},generation.seed={seed}.jsonl")
        for tokens in (4, 8)
        for seed in (1, 2)
    ]
    judged = ["model=tiny", "prompts=FILE", "batch=1,2", "out=a/judged.v1"]
    assert doors.knock("evaluate", *judged, "-m").code == 0
    assert [Path(spec.out).name for spec in doors.specs[-2:]] == [
        *("judged.v1-batch=1", "judged.v1-batch=2")
    ]
    assert doors.knock("sample", "model=tiny", "prompt=Hi", "out=a/said.jsonl").code == 0
    assert doors.specs[-1].out == "a/said.jsonl"


def test_a_sweep_is_one_folder_and_one_group(doors: Doors) -> None:
    assert doors.train("-m", "lr=1e-4,1e-3", "lora.rank=4,16", "logger=wandb").code == 0
    (order,) = doors.orders
    assert order.folder.parent == Path("multirun")
    jobs = doors.jobs()
    assert [(job.lr, job.lora.rank) for job in jobs] == [
        (1e-4, 4),
        (1e-4, 16),
        (1e-3, 4),
        (1e-3, 16),
    ]
    assert {job.logger.chosen["wandb"].group for job in jobs} == {order.folder.name}
    assert jobs[1].name == "lr=0.0001 lora.rank=16"
    assert len({draft.identity for draft in order.source.drafts}) == 4


def test_the_same_and_a_widened_line_find_the_same_sweep(doors: Doors) -> None:
    lines = [
        ["lr=1e-4,1e-3", "epochs=1"],
        ["epochs=1", "lr=1e-3,1e-2,1e-4", "resume=auto", "logger=none", "sweep.retries=3"],
        ["lr=1e-4,1e-3", "epochs=2"],
        ["lr=1e-4,1e-3", "epochs=1", "lora.rank=4,8"],
    ]
    for line in lines:
        assert doors.train("-m", *line).code == 0
    folders = [order.folder for order in doors.orders]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
    first, second = (
        {draft.swept["lr"]: draft.identity for draft in order.source.drafts}
        for order in doors.orders[:2]
    )
    assert {lr: second[lr] for lr in first} == first
    assert doors.train("-m", "lr=1e-4,1e-3", "hydra.sweep.dir=here, there").code == 0
    assert doors.orders[-1].folder == Path("here, there")
    assert doors.train("-m", "lr=1e-4,1e-3", "sweep.name=mine").code == 0
    assert doors.orders[-1].folder == Path("multirun/mine")


def test_swept_values_are_no_part_of_a_name() -> None:
    """A run that cannot be without them is dumped with the first of each; which those are changes
    as the line is widened."""

    def name(corpus: str, rank: int, seed: int = 0) -> str:
        data = {"corpus": corpus, "key": f"hash of {corpus}", "seed": seed}
        config = {"data": data, "lora": {"rank": rank, "alpha": 2 * rank}, "lr": 0.1}
        return sweep_name(config, ["lora", "data.corpus", "optimizer.arguments.none"])

    assert name("a.txt", 4) == name("b.txt", 8)
    assert name("a.txt", 4) != name("a.txt", 4, seed=1)


def test_a_line_that_cannot_be_without_its_first_value_is_not_named_by_it(doors: Doors) -> None:
    """The default option has not the key that is set for all."""
    (doors.folder / "mine" / "optimizer").mkdir(parents=True)
    schema = "defaults:\n  - /schema/optimizer/custom@_here_\n  - _self_\n"
    option = doors.folder / "mine" / "optimizer" / "radam.yaml"
    option.write_text(f"{schema}target: torch.optim.RAdam\n", encoding="utf-8")
    folders = []
    for line in (
        ["optimizer=custom,radam", "optimizer.target=torch.optim.SGD"],
        ["optimizer=radam,custom", "optimizer.target=torch.optim.SGD", "sweep.retries=3"],
        ["optimizer=custom,radam", "optimizer.target=torch.optim.RMSprop"],
    ):
        seen = doors.train("-m", "--config-dir", "mine", *line)
        assert seen.code == 0, seen.err
        folders.append(doors.orders[-1].folder)
    assert folders[0] == folders[1] != folders[2]


def test_a_sweep_over_a_group_is_named_by_what_holds_for_all(doors: Doors) -> None:
    for line in (
        ["lora=attn,dora", "lora.dropout=0.1"],
        ["lora=dora,attn,rslora", "lora.dropout=0.1"],
        ["lora=attn,dora", "lora.dropout=0.2"],
    ):
        assert doors.train("-m", *line).code == 0
    first, widened, other = (order.folder for order in doors.orders)
    assert first == widened != other


def test_the_data_is_part_of_a_job(doors: Doors) -> None:
    identities = []
    for _ in range(2):
        assert doors.train("-m", "lr=1e-4,1e-3").code == 0
        identities.append([draft.identity for draft in doors.orders[-1].source.drafts])
        with (doors.folder / "chats.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n")
    assert not set(identities[0]) & set(identities[1])
    assert doors.orders[0].folder == doors.orders[1].folder


def test_seeds_are_replicates(doors: Doors) -> None:
    assert doors.train("-m", "lr=1e-4,1e-3", "sweep.seeds=2", "seed=5").code == 0
    assert [(job.lr, job.seed) for job in doors.jobs()] == [
        (1e-4, 5),
        (1e-4, 6),
        (1e-3, 5),
        (1e-3, 6),
    ]
    assert doors.train("-m", "sweep.seeds=3").code == 0
    assert len(doors.jobs()) == 3
    seen = doors.train("-m", "sweep.seeds=2", "seed=1,2")
    assert seen.code == 2
    assert "both sweep the seed" in seen.err


def test_every_mistake_of_a_sweep_is_told_before_it_starts(doors: Doors) -> None:
    seen = doors.train("-m", "lr=1e-4,-1", "lora.rank=0,4")
    assert seen.code == 2
    assert not doors.orders
    assert "lr=-1" in seen.err
    assert "lora.rank=0" in seen.err
    for words, message in [
        (["lr=1e-4"], "no key has several values"),
        (["sweep.retries=1,2"], "cannot be swept"),
        (["lr=1e-4,1e-3", "sweep.trials=4"], "a grid tries all of its own"),
        (["lr=1e-4,1e-3", "sweep.name=a/b"], "names a folder"),
    ]:
        seen = doors.train("-m", *words)
        assert seen.code == 2
        assert message in seen.err


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_a_pruner_without_validation_data_is_refused(doors: Doors, pruner: str) -> None:
    line = ["-m", "lr=1e-4,1e-3", f"sweep.pruner={pruner}"]
    seen = doors.train(*line, "data.valid_fraction=0")
    assert seen.code == 2
    assert not doors.orders
    assert f"sweep.pruner={pruner} needs validation data: data.valid=FILE" in seen.err
    seen = doors.train(*line, "data.valid_fraction=0,0.5")
    assert seen.code == 2
    assert "data.valid_fraction=0.5" not in seen.err
    assert doors.train(*line, "data.valid_fraction=0", "data.valid=chats.jsonl").code == 0
    assert doors.train(*line).code == 0


@pytest.mark.parametrize("search", ["tpe", "gp"])
def test_a_search_that_learns_without_validation_data_is_refused(doors: Doors, search: str) -> None:
    line = ["-m", "lr=interval(1e-4,1e-3)", "sweep.trials=4", f"sweep.search={search}"]
    seen = doors.train(*line, "data.valid_fraction=0")
    assert seen.code == 2
    assert not doors.orders
    assert f"sweep.search={search} needs validation data: data.valid=FILE" in seen.err
    assert "sweep.search=random" in seen.err
    assert doors.train(*line).code == 0
    assert doors.train(*line, "data.valid_fraction=0", "sweep.search=random").code == 0


def test_keys_of_a_free_dictionary_are_swept(doors: Doors) -> None:
    custom = ["-m", "optimizer=custom", "optimizer.target=torch.optim.SGD"]
    seen = doors.train(*custom, "optimizer.arguments.momentum=0.5,0.9")
    assert seen.code == 0, seen.err
    assert [job.optimizer.arguments for job in doors.jobs()] == [
        {"momentum": 0.5},
        {"momentum": 0.9},
    ]
    # Also where the line cannot be without its first values.
    swept = ["-m", "optimizer=custom", "optimizer.target=torch.optim.SGD,torch.optim.RMSprop"]
    seen = doors.train(*swept, "optimizer.arguments.momentum=0.5,0.9")
    assert seen.code == 0, seen.err
    assert [job.optimizer.arguments["momentum"] for job in doors.jobs()] == [0.5, 0.9] * 2
    seen = doors.train(*custom, "optimizer.arguments.momentm=0.5,0.9")
    assert seen.code == 2
    assert "Did you mean `momentum`?" in seen.err


def test_a_conditional_value_is_only_checked_where_it_applies(doors: Doors) -> None:
    """A key of one optimizer would be a mistake beside another."""
    (doors.folder / "mine" / "sweep").mkdir(parents=True)
    space = {
        "optimizer": "adamw,custom",
        "optimizer.weight_decay": "0,0.1",
        "optimizer.target": "torch.optim.SGD,torch.optim.Adagrad",
        "optimizer.clip_norm": "interval(0.5,1)",
    }
    when = {
        "optimizer.weight_decay": "optimizer=adamw",
        "optimizer.target": "optimizer=custom",
        "optimizer.clip_norm": "optimizer.target=torch.optim.SGD",
    }
    text = "# @package _global_\n" + yaml.safe_dump({"sweep": {"space": space, "when": when}})
    (doors.folder / "mine" / "sweep" / "several.yaml").write_text(text, encoding="utf-8")
    line = ["-m", "--config-dir", "mine", "sweep=several", "sweep.search=random", "sweep.trials=3"]
    seen = doors.train(*line)
    assert seen.code == 0, seen.err
    source = doors.orders[-1].source
    points = list(corners(source.dimensions))
    assert len(points) == 5
    for dimension in source.dimensions:
        found = [point[dimension.key] for point in points if dimension.key in point]
        assert set(found) == set(swept_texts(dimension))
    assert all(without_idle(point, in_order(source.dimensions)) == point for point in points)
    bad = text.replace("0,0.1", "0,-0.1")
    (doors.folder / "mine" / "sweep" / "several.yaml").write_text(bad, encoding="utf-8")
    seen = doors.train(*line)
    assert seen.code == 2
    assert "optimizer.weight_decay=-0.1" in seen.err


def test_resume_auto_goes_on_in_the_folder_of_the_same_run(doors: Doors) -> None:
    assert doors.train("resume=auto").code == 0
    other = doors.folder / "outputs" / "killed"
    pretend(doors.specs[0], other)
    assert doors.train("resume=auto").code == 0
    assert doors.train("resume=auto", "lr=0.5").code == 0
    assert doors.train("resume=auto", "hydra.run.dir=elsewhere").code == 0
    folders = [Path(spec.run_dir) for spec in doors.specs]
    assert folders[1] == other
    assert folders[2] not in folders[:2]
    assert folders[3] == doors.folder / "elsewhere"


def test_resume_of_a_folder(doors: Doors) -> None:
    folder = doors.folder / "outputs" / "a run, killed"
    folder.mkdir(parents=True)
    assert doors.train(f"resume={folder}").code == 0
    assert doors.specs[0].run_dir == str(folder)
    seen = doors.train("resume=outputs/nowhere")
    assert seen.code == 2
    assert "there is no such folder" in seen.err
    assert doors.train("-m", f"resume={folder}", "lr=1,2").code == 2


def test_epochs_of_a_stable_schedule_share_a_trunk(doors: Doors) -> None:
    stable = ["schedule=wsd", "schedule.warmup_ratio=null", "schedule.warmup_steps=1"]
    assert doors.train("-m", "epochs=5,10", "compile=off", *stable).code == 0
    short, long = doors.orders[-1].source.drafts
    assert (short.trunk, long.trunk) == (long.identity, None)
    assert 0 < short.branch_step < 5
    (line,) = doors.orders[-1].notes
    assert "2 runs, 15 epochs" in line
    assert "begun" not in line
    ledger = Ledger(doors.orders[-1].folder)
    ledger.create()
    ledger.add([short, long], launch="a")
    ledger.tell(0, {"step": 0})
    assert doors.train("-m", "epochs=5,10,20", "compile=off", *stable).code == 0
    (line,) = doors.orders[-1].notes
    assert line.endswith("(from nothing: 1 of them have begun)")
    line = ["epochs=5,10", "compile=off", "sweep.pruner=median"]
    assert doors.train("-m", *line, *stable).code == 0
    assert not any(draft.trunk for draft in doors.orders[-1].source.drafts)


def test_a_sweep_beyond_its_budget_starts_no_job(doors: Doors) -> None:
    limit = ["machine=h100", "budget.max_hours=1e-9"]
    seen = doors.train("-m", "lr=1e-4,1e-3", *limit)
    assert seen.code == 2
    assert not doors.orders
    assert "2 jobs of the sweep together" in seen.err
    assert doors.train("-m", "lr=1e-4,1e-3", "machine=h100", "budget.max_hours=100").code == 0
