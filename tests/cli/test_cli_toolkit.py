"""The toolkit's words: what they become, what is refused, and where files are looked for."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from graftlab.apple.toolkit.table import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Doors

TRAIN = "train-adapter --train-data t.jsonl --model afm-mini"


@pytest.fixture(autouse=True)
def _no_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFTLAB_AFM_ASSETS", raising=False)


def line(doors: Doors, command: str) -> list[str]:
    """The graftlab words that a toolkit line becomes."""
    seen = doors.knock("toolkit", *shlex.split(command), "--dry-run")
    assert seen.code == 0, seen.err
    (printed,) = seen.out.splitlines()
    program, *words = shlex.split(printed)
    assert program == "graftlab"
    return words


def refused(doors: Doors, command: str) -> str:
    seen = doors.knock("toolkit", *shlex.split(command))
    assert seen.code == 2
    assert not doors.specs
    assert seen.err.startswith("graftlab toolkit")
    return seen.err


def test_both_spellings_are_one(doors: Doors) -> None:
    plain = line(doors, f"{TRAIN} --batch-size 3 --learning-rate 1e-4 --pack-sequences")
    for other in (
        "train_adapter --train_data t.jsonl --model afm_mini --batch_size=3 --learning_rate=1e-4 "
        "--pack_sequences",
        "examples.train_adapter --train-data=t.jsonl --model=afm-mini --batch-size 3 "
        "--learning-rate 1e-4 --pack-sequences",
    ):
        assert line(doors, other) == plain
    assert {"batch_size=3", "lr=1e-4", "packing=best-fit"} <= set(plain)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_does_something_and_is_in_the_help(name: str, doors: Doors) -> None:
    overview = doors.knock("toolkit", "--help").out.partition(f"\n{name}: ")[2]
    seen = doors.knock("toolkit", name, "--help")
    assert seen.code == 0
    for flag in COMMANDS[name].flags:
        assert flag.words or flag.keys or flag.note
        for page in (overview, seen.out):
            (shown, *_) = [row for row in page.splitlines() if row.startswith(f"  {flag.shown} ")]
            assert flag.target.split()[0] in shown


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        *[("f32", "fp32"), ("fp32", "fp32"), ("bf16", "bf16"), ("bf16-mixed", "bf16-mixed")],
        *[("BF16_mixed", "bf16-mixed"), ("f16-mixed", "fp16-mixed"), ("fp16-mixed", "fp16-mixed")],
    ],
)
def test_names_of_precisions(given: str, ours: str, doors: Doors) -> None:
    assert f"precision={ours}" in line(doors, f"{TRAIN} --precision {given}")


def test_all_mistakes_are_told_at_once(doors: Doors) -> None:
    said = refused(
        doors, "train-adapter --epoks 3 --batch-size many --precision f8 stray --eval-data"
    )
    assert "--epoks is not a flag of train-adapter. Did you mean `--epochs`?" in said
    assert "--batch-size many: it must be a whole number." in said
    assert "--precision f8: it must be one of f32" in said
    assert "`stray` is neither a flag nor key=value." in said
    assert "--eval-data needs a value" in said
    assert "--train-data DATA is required." in said
    assert "`3`" not in said  # the value of a flag that does not exist


def test_unknown_words_are_refused(doors: Doors) -> None:
    assert "Did you mean `train-adapter`?" in refused(doors, "train-adaptor")
    assert "Did you mean `toolkit`?" in doors.knock("tolkit").err
    assert "takes no value" in refused(doors, f"{TRAIN} --pack-sequences=yes")


def test_what_means_nothing_here_is_said(doors: Doors) -> None:
    seen = doors.knock("toolkit", *TRAIN.split(), "--fixed-sized-sequences", "--dry-run")
    assert seen.code == 0
    assert "--fixed-sized-sequences sets nothing: rows are padded" in seen.err
    assert doors.knock("toolkit", *TRAIN.split(), "--dry-run").out == seen.out


def test_a_translation_needs_no_files(doors: Doors) -> None:
    """What `--dry-run` prints is what would be run, once what it says is there."""
    for command, words in {
        "train-adapter --train-data t.jsonl": {"model=afm-3b", "model.path=ASSETS"},
        "generate --prompt Hi --checkpoint ./out/adapter-epoch3.pt": {
            "adapter=./out/adapter-epoch3.pt"
        },
        "export-fmadapter --adapter-name a --checkpoint c.pt --output-dir o": {"adapter=c.pt"},
        "train-draft-model --checkpoint out/a.pt --train-data t.jsonl": {
            "objective.teacher=out/a.pt", "objective.base=ASSETS",
        },
    }.items():  # fmt: skip
        seen = doors.knock("toolkit", *shlex.split(command), "--dry-run")
        assert seen.code == 0, seen.err
        assert words <= set(shlex.split(seen.out))
        assert "To run it, this is missing: " in seen.err
        assert doors.knock("toolkit", *shlex.split(command)).code == 2
    assert doors.knock("toolkit", "train-adapter", "--dry-run").code == 2  # no --train-data


def test_words_of_our_own_win(doors: Doors) -> None:
    words = line(doors, f"{TRAIN} --epochs 7 epochs=1 packing=first-fit max_steps=3")
    assert words[-3:] == ["epochs=1", "packing=first-fit", "max_steps=3"]
    assert not {"epochs=7", "packing=none"} & set(words)


def test_where_the_assets_are(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(doors, "train-adapter --train-data t.jsonl")
    assert "--assets DIR" in said
    assert "$GRAFTLAB_AFM_ASSETS" in said
    assert "--model afm-mini" in said
    train = "train-adapter --train-data t.jsonl"
    (doors.folder / "assets").mkdir()
    (doors.folder / "assets" / "base-model.pt").touch()
    for place, command in (
        ("assets", train),
        ("there", f"{train} model.path=there"),
        ("from env", train),
        ("my, assets", f"{train} --assets 'my, assets'"),
    ):
        if place == "from env":
            monkeypatch.setenv("GRAFTLAB_AFM_ASSETS", place)
        words = line(doors, command)
        assert "model=afm-3b" in words
        assert [word for word in words if word.startswith("model.path=")] == [f"model.path={place}"]


def test_a_prompt_is_a_text_or_a_file(doors: Doors) -> None:
    text = 'Say "it", (now)'
    words = line(doors, f"generate --model afm-mini --prompt {shlex.quote(text)}")
    assert f"prompt={text}" in words
    assert {"generation.temperature=1.0", "generation.top_k=50"} <= set(words)
    for name in ("missing.jsonl", "chats.jsonl"):
        assert f"prompts={name}" in line(doors, f"generate --model afm-mini --prompt {name}")
    greedy = line(doors, "generate --model afm-mini --prompt Hi --temperature 0")
    assert not any(word.startswith("generation.top_k") for word in greedy)


def leave(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def generate(doors: Doors, checkpoint: str) -> list[str]:
    return line(doors, f"generate --prompt Hi --checkpoint {checkpoint}")


def test_a_checkpoint_of_the_toolkit_needs_its_base(doors: Doors) -> None:
    leave(doors.folder, "out/adapter-epoch3.pt")
    assert "Where are the toolkit's assets" in refused(
        doors, "generate --prompt Hi --checkpoint out/adapter-epoch3.pt"
    )
    words = line(doors, "generate --prompt Hi --checkpoint out/adapter-epoch3.pt --assets A")
    assert words[:5] == [
        *("sample", "prompt=Hi", "model=afm-3b", "model.path=A", "adapter=out/adapter-epoch3.pt")
    ]


def test_a_checkpoint_s_name_finds_the_run(doors: Doors) -> None:
    run = "out/adapter"
    leave(doors.folder, f"{run}/run.yaml", f"{run}/adapter/run.yaml")
    leave(doors.folder, f"{run}/checkpoints/adapter-epoch3.pt", "out/draft-model/adapter/run.yaml")
    assert f"adapter={run}/checkpoints/adapter-epoch3.pt" in generate(
        doors, "out/adapter-epoch3.pt"
    )
    assert f"adapter={run}" in generate(doors, "out/adapter-best.pt")
    inside = generate(doors, f"{run}/checkpoints/adapter-best.pt")
    assert f"adapter={run}" in inside
    assert not any(word.startswith("model") for word in inside)  # the run knows
    export = line(
        doors,
        "export-fmadapter --adapter-name ficino_music --checkpoint ./out/adapter-best.pt "
        "--draft-checkpoint ./out/draft-model-final.pt --output-dir ./exports/",
    )
    assert {f"adapter={run}", "target.draft=out/draft-model", "name=ficino_music"} <= set(export)


def test_a_checkpoint_that_is_not_there(doors: Doors) -> None:
    leave(doors.folder, "out/adapter-epoch2.pt", "out/adapter/checkpoints/adapter-final.pt")
    said = refused(doors, "generate --prompt Hi --checkpoint out/adapter-epoch3.pt")
    assert (
        "Did you mean `adapter-epoch2.pt`? There are: adapter-epoch2.pt, adapter-final.pt" in said
    )
    assert "no folder nowhere" in refused(doors, "generate --prompt Hi --checkpoint nowhere/a.pt")


def test_a_finished_run_is_not_trained_over(doors: Doors) -> None:
    leave(doors.folder, "out/adapter/result.json")
    assert "choose another --checkpoint-dir" in refused(doors, f"{TRAIN} --checkpoint-dir out")
    words = line(doors, f"{TRAIN} --checkpoint-dir out --resume")
    assert {"resume=auto", "hydra.run.dir=out/adapter"} <= set(words)


def test_checkpoints_are_handed_over(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the run ends early: what it wrote is beside it, as the toolkit leaves it."""

    def cut_short(words: list[str], call: str) -> int:
        for number in (1, 2):
            leave(doors.folder, f"out/adapter/checkpoints/adapter-epoch{number}.pt")
        raise KeyboardInterrupt

    from graftlab.apple.toolkit.answer import answer

    leave(doors.folder, "out/adapter-epoch2.pt", "out/notes.pt")
    with pytest.raises(KeyboardInterrupt):
        answer(shlex.split(f"{TRAIN} --checkpoint-dir out"), cut_short)
    handed = doors.folder / "out" / "adapter-epoch1.pt"
    assert handed.samefile(doors.folder / "out/adapter/checkpoints/adapter-epoch1.pt")
    assert sorted(path.name for path in (doors.folder / "out").iterdir()) == [
        *("adapter", "adapter-epoch1.pt", "adapter-epoch2.pt", "notes.pt")
    ]
    others = doors.folder / "out" / "adapter-epoch2.pt"  # was there before: of another training
    assert not others.samefile(doors.folder / "out/adapter/checkpoints/adapter-epoch2.pt")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("graftlab toolkit tr", {"train-adapter", "train-draft-model"}),
        ("graftlab toolkit train-adapter --ep", {"--epochs"}),
        ("graftlab toolkit train_adapter --train_d", {"--train-data"}),
    ],
)
def test_completion(
    typed: str, expected: set[str], doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", typed)
    assert set(doors.knock("-sc", "query=bash").out.split()) == expected


def test_a_teacher_of_the_toolkit_s_own_has_its_base_said(doors: Doors) -> None:
    leave(doors.folder, "out/adapter-final.pt")
    command = "train-draft-model --train-data t.jsonl --checkpoint out/adapter-final.pt"
    assert "Where are the toolkit's assets" in refused(doors, command)
    words = line(doors, f"{command} --assets A")
    assert {"model.of=A", "objective.base=A", "objective.teacher=out/adapter-final.pt"} <= set(
        words
    )
    assert "--assets says" in refused(doors, f"{command} --model afm-mini")
