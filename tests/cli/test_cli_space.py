"""Hydra's sweep syntax as dimensions, spaces in YAML, and what is typed over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from chats import chats
from graftlab.cli.overrides import read_arguments
from graftlab.cli.preflight import CommandLine, sweep_values
from graftlab.cli.schema import read_schema
from graftlab.cli.space import dimension_of, read_space, swept_texts
from graftlab.cli.sweep import read_sweep
from graftlab.cli.validate import check_arguments
from graftlab.errors import ConfigError
from graftlab.files.paths import conf_dir
from graftlab.sweeps.search import propose
from graftlab.sweeps.space import Dimension, check, grid

MENU = read_schema("train", [conf_dir()])
SPACES = sorted((conf_dir() / "sweep").glob("*.yaml"))


def words(*typed: str) -> list[Any]:
    return check_arguments(read_arguments(typed, "train"), MENU, multirun=True)


def one(typed: str) -> Dimension | None:
    (word,) = words(typed)
    return dimension_of(word.hydra, MENU)


def read(
    *typed: str, space: dict[str, Any] | None = None, when: dict[str, str] | None = None
) -> dict[str, Dimension]:
    found = read_space(words(*typed), space=space or {}, when=when or {}, schema=MENU)
    return {d.key: d for d in found}


LISTS = {
    "lr=1e-4,1e-3": ("0.0001", "0.001"),
    "lora=attn,dora": ("attn", "dora"),
    "lora=glob(*-*)": ("afm-r32", "all-linear", "attn-mlp"),
    "lora=glob(*,exclude=[a*])": ("dora", "none", "rslora"),
    "lora.rank=range(8,33,8)": ("8", "16", "24", "32"),
    "lora.dropout=range(0,0.35,0.1)": ("0.0", "0.1", "0.2", "0.3"),
    "lora.rank=choice(4,8)": ("4", "8"),
    "lora.rank=choice(4)": ("4",),
    "lora.rank=sort(16,4,8)": ("4", "8", "16"),
    "lora.targets=[q_proj,v_proj],attn": ("[q_proj,v_proj]", "attn"),
    "logger.wandb.tags=[a,b],[c]": ("[a,b]", "[c]"),
    "max_steps=null,10": ("null", "10"),
    "callbacks=default,[default,plateau]": ("default", "[default,plateau]"),
    "lora.dora=true,false": ("True", "False"),
}


@pytest.mark.parametrize(("typed", "texts"), LISTS.items(), ids=list(LISTS))
def test_lists(typed: str, texts: tuple[str, ...]) -> None:
    """As Hydra's own sweeper reads them; and each text is read back as the same value."""
    found = one(typed)
    assert found == Dimension(key=typed.partition("=")[0], choices=texts)
    parsed = OverridesParser.create().parse_override(typed)
    if "glob" not in typed and "0.35" not in typed:
        assert list(parsed.sweep_string_iterator()) == list(texts)
    assert sweep_values(typed, MENU) == [f"{found.key}={text}" for text in texts]
    for text in texts:
        again = OverridesParser.create().parse_override(f"{found.key}={text}")
        assert again.get_value_element_as_str() == text


def test_one_value_is_no_dimension() -> None:
    for typed in ("lr=1e-3", "lora=dora", "lora.targets=[q_proj,v_proj]", "data.train=a,b.jsonl"):
        assert one(typed) is None
    assert sweep_values("lr=1e-3", MENU) == ["lr=1e-3"]


def test_a_free_key_is_plain_in_the_space_and_added_in_jobs() -> None:
    (word,) = words("optimizer.arguments.nesterov=true,false")
    found = dimension_of(word.hydra, MENU)
    assert found is not None
    assert found.key == "optimizer.arguments.nesterov"
    assert sweep_values(word.hydra, MENU)[0] == "++optimizer.arguments.nesterov=True"


def test_shuffled_lists_stay_as_they_fell() -> None:
    first, again = one("lora.rank=shuffle(range(1,30))"), one("lora.rank=shuffle(range(1,30))")
    assert first == again
    assert first is not None
    assert first.choices is not None
    assert list(first.choices) != sorted(first.choices, key=int)
    assert sorted(first.choices, key=int) == [str(n) for n in range(1, 30)]


INTERVALS = {
    "lr=interval(1e-4,1e-3)": Dimension(key="lr", low=1e-4, high=1e-3, log=True),
    "lr=interval(1e-4,5e-4)": Dimension(key="lr", low=1e-4, high=5e-4),
    "lr=tag(linear,interval(1e-4,1e-3))": Dimension(key="lr", low=1e-4, high=1e-3),
    "lr=tag(log,interval(1e-4,5e-4))": Dimension(key="lr", low=1e-4, high=5e-4, log=True),
    "lora.rank=interval(8,128)": Dimension(
        key="lora.rank", low=8, high=128, log=True, integer=True
    ),
    "lora.rank=tag(step:8,interval(8,128))": Dimension(
        key="lora.rank", low=8, high=128, step=8, integer=True
    ),
    "max_steps=interval(10,20)": Dimension(key="max_steps", low=10, high=20, integer=True),
    "lora.dropout=interval(0,0.1)": Dimension(key="lora.dropout", low=0, high=0.1),
    "lora.alpha=interval(8,32)": Dimension(key="lora.alpha", low=8, high=32),
    "lora.alpha=int(interval(8,32))": Dimension(key="lora.alpha", low=8, high=32, integer=True),
}


@pytest.mark.parametrize(("typed", "wanted"), INTERVALS.items(), ids=list(INTERVALS))
def test_intervals(typed: str, wanted: Dimension) -> None:
    assert one(typed) == wanted
    assert sweep_values(typed, MENU) == [f"{wanted.key}={text}" for text in swept_texts(wanted)]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lora.rank=interval(8.5,16)", "takes whole numbers"),
        ("lora.dora=interval(0,1)", "takes no numbers"),
        ("compile=interval(0,1)", "takes no numbers"),
        ("lr=interval(1e-3,1e-4)", "from a number to a larger one"),
        ("lr=tag(log,interval(0,1))", "cannot be logarithmic"),
        ("lr=tag(lgo,interval(1,2))", r"tag\(lgo, ...\) means nothing here"),
        ("lr=tag(step:x,interval(1,2))", r"tag\(step:x"),
        ("lr=tag(log,choice(1,2))", "a list has no use"),
        ("lr=glob(*)", "among the options of a group"),
        ("lora=glob(x*)", "matches none of"),
        ("lr=1e-3,1e-3", "names a value twice"),
        ("lora.rank=range(8,8)", "nothing to choose from"),
    ],
)
def test_what_cannot_be_searched(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        one(typed)


def test_a_typed_word_wins_over_the_space() -> None:
    space = {"lr": "interval(1e-4,1e-3)", "lora.rank": [8, 16], "epochs": "1,2", "lora": "dora"}
    found = read("lr=1e-3,1e-2", "epochs=5", space=space)
    assert list(found) == ["lora.rank", "lora", "lr"]
    assert found["lr"].choices == ("0.001", "0.01")
    assert found["lora.rank"].choices == ("8", "16")
    assert found["lora"].choices == ("dora",)
    assert read("lora.from=RUN", space={"lora.from": ["A", "B"]}) == {}


def test_yaml_lists_hold_values_that_cannot_be_typed_as_a_sweep() -> None:
    space = {
        "data.train": ["a,b.jsonl", "c.jsonl"],
        "lora.targets": [["q_proj", "v_proj"], "attn"],
        "lora.dora": [True, False],
        "lora.layers": [None, 1],
    }
    found = read(space=space)
    assert found["data.train"].choices == ("'a,b.jsonl'", "'c.jsonl'")
    assert found["lora.targets"].choices == ("[q_proj,v_proj]", "attn")
    assert found["lora.dora"].choices == ("True", "False")
    assert found["lora.layers"].choices == ("null", "1")


def test_conditions() -> None:
    space = {"lora": "attn,dora", "lora.dropout": "0,0.1"}
    when = {"lora.dropout": "lora=dora"}
    assert len(grid(list(read(space=space, when=when).values()))) == 3
    assert read("lora.dropout=0.2", space=space, when=when).keys() == {"lora"}
    typed = read("lora.dropout=0.2,0.3", space=space, when=when)  # the values, not the condition
    assert typed["lora.dropout"].when == ("lora", "dora")
    assert typed["lora.dropout"].choices == ("0.2", "0.3")
    held = read("lora=dora", space=space, when=when)
    assert held == {"lora.dropout": Dimension(key="lora.dropout", choices=("0", "0.1"))}
    assert read("lora=attn", space=space, when=when) == {}
    ranks = {"lora.rank": "8,1e2", "lora.rslora": "true,false"}
    by_number = read(space=ranks, when={"lora.rslora": "lora.rank=100.0"})
    assert by_number["lora.rslora"].when == ("lora.rank", "100.0")


def test_every_mistake_in_a_space_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            space={"lora.rnak": "8,16", "lora": "attn,doar", "lr": "interval(2,1)", "seed": []},
            when={"epochs": "lora=dora", "lora": "dora"},
        )
    told = str(caught.value)
    assert "sweep.space: `lora.rnak` is not a key" in told
    assert "Did you mean `lora.rank`" in told
    assert "sweep.space: lora=doar is not one of" in told
    assert "sweep.space: lr:" in told
    assert "sweep.space: seed: there is nothing to choose from" in told
    assert "sweep.when: epochs is not swept" in told
    with pytest.raises(ConfigError, match=r"lora: dora is not of the form other\.key=value"):
        read(space={"lora": "attn,dora"}, when={"lora": "dora"})


def test_there_are_spaces() -> None:
    names = {path.stem for path in SPACES}
    assert names >= {"lr-rank", "lr-rank-epochs", "targets", "airoad-flavours"}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_shipped_space_can_be_searched(path: Any) -> None:
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))["sweep"]
    dimensions = list(read(space=sweep["space"], when=sweep.get("when")).values())
    check(dimensions)
    assert [d.key for d in dimensions] == list(sweep["space"])
    if sweep.get("search", "grid") == "grid":
        assert 2 <= len(grid(dimensions)) <= 40
    else:
        method = sweep["search"]
        assert sweep["trials"] >= 20
        assert propose(dimensions, [], method=method, seed=0, number=0) is not None


def test_the_ranges_of_the_guides() -> None:
    sweep = yaml.safe_load((conf_dir() / "sweep" / "lr-rank-epochs.yaml").read_text())["sweep"]
    found = read(space=sweep["space"])
    assert (found["lr"].low, found["lr"].high, found["lr"].log) == (1e-4, 1e-3, True)
    assert (found["lora.rank"].low, found["lora.rank"].high) == (8, 128)
    assert found["lora.rank"].integer
    assert (found["epochs"].low, found["epochs"].high, found["epochs"].log) == (1, 10, False)


def test_a_sweep_over_experiments_is_read_with_one_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its numbers are the experiments', not those of the defaults, which no job has."""
    data = chats(tmp_path / "chats.jsonl", 8)
    typed = words("sweep=airoad-flavours", "data=jsonl", f"data.train={data}")
    line = read_sweep(CommandLine(MENU, conf_dir()), typed)
    assert (line.base.lr, line.base.max_steps) == (6e-5, 120)
    assert "auto" not in "".join(capsys.readouterr())
    jobs = [job for point in grid(line.dimensions) for job in line.drafts(point)]
    assert [job.spec["lora"]["dora"] for job in jobs] == [False, True, False, True]


def test_numbers_that_no_job_has_are_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = chats(tmp_path / "chats.jsonl", 8)
    fixed = ["model=tiny", "data=jsonl", f"data.train={data}"]
    command = CommandLine(MENU, conf_dir())
    read_sweep(command, words(*fixed, "lr=auto", "seed=1,2"))
    assert "lr=" in "".join(capsys.readouterr())
    read_sweep(command, words(*fixed, "lr=auto,1e-3"))
    assert "lr=" not in "".join(capsys.readouterr())
