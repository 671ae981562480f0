"""`prepare` as a whole: nothing is lost, the same bytes come out, a killed one leaves nothing."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftlab.data.prepared import PreparedData
from graftlab.errors import ConfigError, DataError, GraftlabError
from graftlab.recipes.decontaminate import Decontaminate
from graftlab.recipes.dedupe import Dedupe
from graftlab.recipes.mix import Mix
from graftlab.recipes.pipeline import Pipeline, PipelineBranch
from graftlab.recipes.prepare import Prepared, prepare
from graftlab.recipes.record import Drop, Record
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.spec import PrepareSpec
from graftlab.recipes.split import Split
from graftlab.verbs.prepare import run
from recipe_rows import chat, many, read_lines, sentence, turns, write_lines


@dataclass(kw_only=True, slots=True)
class Halves:
    """A step for the tests: drops every third record and doubles the others."""

    third: int = 3

    def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
        for number, record in enumerate(records):
            if number % self.third == 0:
                drop(record, "a third", f"number {number}")
                continue
            yield record
            yield replace(record, body={"text": f"{record.origin} again"}, kind="text")


@dataclass(kw_only=True, slots=True)
class Made:
    """A set for the tests that is made instead of read."""

    count: int = 4

    def records(self) -> Iterator[Record]:
        return iter(many(self.count, source="made"))


@dataclass(kw_only=True, slots=True)
class WiderSpec(PrepareSpec):
    """What a further step and a further set need: one line each."""

    halves: Halves = field(default_factory=Halves)
    made: Made = field(default_factory=Made)


def rows(count: int, *, start: int = 0) -> list[Any]:
    return [{"messages": turns(sentence(n), sentence(n + 9999))} for n in range(start, count)]


def spec(tmp_path: Path, **rest: Any) -> PrepareSpec:
    file = write_lines(tmp_path / "rows.jsonl", rows(40))
    return PrepareSpec(sources={"core": SourceSpec(files=file)}, out=str(tmp_path / "out"), **rest)


def check_counts(made: Prepared, read: int) -> None:
    """in = kept + dropped at every step, every drop is in rejects.jsonl, all files agree."""
    manifest = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
    rejects = Counter((r["step"], r["reason"]) for r in read_lines(made.folder / "rejects.jsonl"))
    told = {
        (step["step"], reason): count
        for step in manifest["steps"]
        for reason, count in step["dropped"].items()
    }
    assert rejects == told
    assert manifest["rejects"]["rows"] == rejects.total()
    for step in manifest["steps"]:
        assert step["in"] == step["kept"] + sum(step["dropped"].values())
        assert step["kept"] <= step["out"]
    assert sum(s["in"] for s in manifest["steps"] if s["step"].endswith(("read", "make"))) == read
    written = {
        file.stem: len(read_lines(file))
        for file in made.folder.glob("*.jsonl")
        if file.stem != "rejects"
    }
    assert written == {side: found["rows"] for side, found in manifest["result"].items()}
    assert manifest["steps"][-1]["out"] == written["train"]


def test_files_and_their_lines(tmp_path: Path) -> None:
    made = prepare(spec(tmp_path, split=Split(valid=0.1, test=0.1)))
    names = ["checksums.json", "manifest.json", "rejects.jsonl", "report.html"]
    names += ["test.jsonl", "train.jsonl", "valid.jsonl"]
    assert sorted(os.listdir(made.folder)) == names
    assert sorted(os.listdir(tmp_path)) == ["out", "rows.jsonl"]
    lines = read_lines(made.folder / "train.jsonl")
    assert len(lines) == 32
    assert all(line.keys() == {"messages", "source"} for line in lines)
    check_counts(made, 40)


def test_steps_of_a_source_sets_that_are_made_and_a_mix(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [*rows(30), {"bad": 1}])
    made = prepare(
        WiderSpec(
            sources={
                "core": SourceSpec(files=file, steps=["halves"]),
                "guard": SourceSpec(make="made"),
            },
            out=str(tmp_path / "out"),
            mix=Mix(weights={"core": 3, "guard": 1}),
            split=Split(valid=0.2),
        )
    )
    check_counts(made, 35)
    steps = [tally.step for tally in made.tallies]
    assert steps == [
        *("core: read", "core: halves", "guard: make"),
        *("dedupe", "decontaminate", "split", "mix"),
    ]
    halves = made.tallies[1]
    assert (halves.kept, halves.dropped, halves.given.total()) == (20, 10, 40)
    assert made.rows["train"] == {"core": 32, "guard": 11}
    manifest = json.loads((made.folder / "manifest.json").read_text())
    mixed = manifest["steps"][-1]
    assert mixed["sources"]["guard"] == {"in": 3, "out": 11, "times": 3.667}
    assert mixed["parameters"]["weights"] == {"core": 3, "guard": 1}
    assert manifest["inputs"][0]["sha256"] != manifest["result"]["train"]["sha256"]
    both = {r["source"] for r in read_lines(made.folder / "valid.jsonl")}
    assert both == {"core", "guard"}


def test_the_same_inputs_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    def content(out: str, seed: int) -> dict[str, bytes]:
        wanted = spec(tmp_path, seed=seed, mix=Mix(seed=seed))
        wanted.out = str(tmp_path / out)
        folder = prepare(wanted).folder
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    first = content("a", 0)
    assert first == content("b", 0) == content("a", 0)
    other = content("c", 1)
    assert first["train.jsonl"] != other["train.jsonl"]
    assert first["valid.jsonl"] == other["valid.jsonl"]


TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"])},
    optional={
        "content": TEXT | st.none(),
    },
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROW = st.one_of(
    ANY_JSON,
    st.lists(TURN, max_size=4).map(lambda found: {"messages": found}),
    st.tuples(TEXT, TEXT).map(lambda found: {"messages": turns(*found)}),
    st.fixed_dictionaries({"instruction": TEXT, "output": TEXT}, optional={"input": ANY_JSON}),
    st.fixed_dictionaries({"text": TEXT | ANY_JSON}),
    st.fixed_dictionaries({"prompt": TEXT, "chosen": TEXT, "rejected": TEXT | ANY_JSON}),
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ROW, max_size=12), st.binary(max_size=20), st.booleans())
def test_no_row_is_lost_whatever_it_is(
    tmp_path: Path, given_rows: list[Any], noise: bytes, weighted: bool
) -> None:
    file = tmp_path / "any.jsonl"
    lines = [json.dumps(row).encode() for row in [*rows(6), *given_rows]]
    noise = noise.replace(b"\n", b"")
    file.write_bytes(b"\n".join([*lines, noise]))
    other = write_lines(tmp_path / "other.jsonl", rows(12, start=3))
    made = prepare(
        WiderSpec(
            sources={
                "core": SourceSpec(files=str(file), format="json"),
                "other": SourceSpec(files=other, steps=["halves"]),
            },
            mix=Mix(weights={"core": 1, "other": 2} if weighted else {}),
            split=Split(valid=0.3),
            out=str(tmp_path / "out"),
        )
    )
    check_counts(made, len(lines) + bool(noise.strip()) + 9)


def test_a_step_that_loses_rows_is_found_out(tmp_path: Path) -> None:
    @dataclass
    class Loses:
        def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
            yield from list(records)[1:]

    @dataclass
    class Stops:
        def apply(self, records: Iterator[Record], drop: Drop) -> Iterator[Record]:
            yield next(records)

    for step, complaint in ((Loses(), "lost rows without a reason"), (Stops(), "stopped before")):
        walk = Pipeline(
            [PipelineBranch("core", lambda drop: iter(many(5)))], [("step", step)], Mix()
        )
        with pytest.raises(AssertionError, match=complaint):
            walk.run(tmp_path)


def test_tool_calls_pass_and_preferences_are_left_out_with_a_reason(tmp_path: Path) -> None:
    call = {"from": "function_call", "value": '{"name": "age", "arguments": {}}'}
    back = {"from": "observation", "value": "31"}
    ends = {"from": "human", "value": "Age?"}, {"from": "gpt", "value": "31."}
    odd: list[Any] = [
        {"conversations": [ends[0], call, back, ends[1]], "tools": '[{"name": "age"}]'},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"messages": turns("a", "b"), "label": True},
    ]
    file = write_lines(tmp_path / "rows.jsonl", [*rows(20), *odd])
    made = prepare(
        PrepareSpec(
            sources={"core": SourceSpec(files=file)},
            out=str(tmp_path / "out"),
            split=Split(valid=0, near=None),
        )
    )
    kept = read_lines(made.folder / "train.jsonl")
    assert len(kept) == 21
    (called,) = [row for row in kept if "tools" in row]
    assert [turn["role"] for turn in called["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    data = PreparedData(path=str(made.folder)).load()
    assert sum(bool(one.messages[1].tool_calls) for one in data.train) == 1
    left = read_lines(made.folder / "rejects.jsonl")
    assert {row["reason"] for row in left} == {"cannot be used"}
    assert ["prepare does not pass on" in row["detail"] for row in left] == [True, True]


def test_prepared_folders_are_read_with_their_split(tmp_path: Path) -> None:
    made = prepare(spec(tmp_path, split=Split(valid=0.2)))
    data = PreparedData(path=str(made.folder)).load()
    assert (len(data.train), len(data.valid)) == (32, 8)
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        PreparedData()
    with pytest.raises(ConfigError, match="there is no such folder"):
        PreparedData(path=str(tmp_path / "none")).check()
    with pytest.raises(ConfigError, match=r"has no manifest\.json and no train\.jsonl"):
        PreparedData(path=str(tmp_path)).check()
    with pytest.raises(ConfigError, match=r"give data\.path=DIR alone"):
        PreparedData(path=str(made.folder), train="a.jsonl")


def test_a_result_takes_the_place_of_an_earlier_one_only(tmp_path: Path) -> None:
    first = prepare(spec(tmp_path))
    (first.folder / "test.jsonl").touch()  # of an earlier result
    (first.folder / "notes.txt").touch()
    prepare(spec(tmp_path))
    assert not (first.folder / "test.jsonl").exists()
    assert (first.folder / "notes.txt").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    wanted = spec(tmp_path)
    for out, message in [
        ("other", "holds other files"),
        ("rows.jsonl", "is a file"),
        ("rows.jsonl/deep", "cannot be written"),
    ]:
        wanted.out = str(tmp_path / out)
        with pytest.raises(ConfigError, match=message):
            prepare(wanted)
    wanted.out = None
    with pytest.raises(ConfigError, match="out is not set"):
        prepare(wanted)
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_an_error_leaves_the_earlier_result(tmp_path: Path) -> None:
    before = (prepare(spec(tmp_path)).folder / "train.jsonl").read_bytes()
    wanted = spec(tmp_path)
    with (tmp_path / "rows.jsonl").open("w") as file:
        file.write("[1, 2\n")
    with pytest.raises(DataError):
        prepare(wanted)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["out", "rows.jsonl"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    wanted = spec(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(GraftlabError, match=r"out could not be made: .*Beside it.*room"):
            prepare(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl"]
    prepare(wanted)


def test_a_killed_one_leaves_no_folder_that_looks_whole(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", rows(20))
    program = f"""
import os, signal
from graftlab.recipes import manifest
from graftlab.recipes.sources import SourceSpec
from graftlab.recipes.prepare import prepare
from graftlab.recipes.spec import PrepareSpec
manifest.write = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
prepare(PrepareSpec(sources={{"core": SourceSpec(files={file!r})}}, out={str(tmp_path / "out")!r}))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=env, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.*.partial/out/train.jsonl"))) == 1
    prepare(spec(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["out", "rows.jsonl"]


def test_the_summary_tells_counts_and_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftlab import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    wanted = spec(tmp_path)
    write_lines(tmp_path / "rows.jsonl", [*rows(40), {"bad": 1}, rows(1)[0]])
    run(wanted)
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert lines["core: read"][2:6] == ["42", "41", "1", "41"]
    assert lines["dedupe"][1:5] == ["41", "40", "1", "40"]
    assert "exact duplicate 1" in out
    assert f"{tmp_path / 'out' / 'rejects.jsonl'}: 2 dropped rows" in out.replace("\n", "")
    assert "report.html: counts" in out.replace("\n", "")
    assert "in, " in out  # a line of progress


def test_what_does_not_fit_is_told_at_once() -> None:
    core = SourceSpec(files="a.jsonl", steps=["halvs"])
    with pytest.raises(ConfigError) as caught:
        WiderSpec(
            sources={"core": core, "guard": SourceSpec(make="mad")},
            mix=Mix(weights={"cor": 1, "guard": 1}),
        )
    message = str(caught.value)
    assert re.search("sources.core.steps: `halvs` is not one of .*Did you mean `halves`", message)
    assert re.search("sources.guard.make: `mad` is not one of .*Did you mean `made`", message)
    assert "mix.weights: `cor` is not one of core, guard. Did you mean `core`?" in message
    assert "mix.weights gives core no weight" in message
    with pytest.raises(ConfigError, match="There is no source"):
        PrepareSpec()


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    wanted = spec(tmp_path, decontaminate=Decontaminate(against=str(tmp_path / "rows.jsonl")))
    with pytest.raises(DataError, match="No row is left to train on"):
        prepare(wanted)
    assert not (tmp_path / "out").exists()


def test_memory_stays_small(tmp_path: Path) -> None:
    """Records wait on disk: three thousand of 4 kB each pass in a small part of their size."""
    import tracemalloc

    def stream() -> Iterator[Record]:
        for n in range(3000):
            words = " ".join(random.Random(n).choices(["alpha", "beta", "gamma"], k=8))
            yield chat(f"{n} {words}", "x" * 4000, origin=f"f:{n}")

    walk = Pipeline(
        [PipelineBranch("core", lambda drop: stream())],
        [("dedupe", Dedupe(near=None)), ("split", Split(near=None))],
        Mix(),
    )
    tracemalloc.start()
    walk.run(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
