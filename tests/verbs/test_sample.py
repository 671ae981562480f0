"""`graftlab sample`: base and adapter answer, side by side, from an adapter folder alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from graftlab.errors import ConfigError, DataError, ModelError
from graftlab.generation.decode import Reply
from graftlab.generation.sampling import Generation
from graftlab.generation.show import Screen
from graftlab.models.cache import acquire
from graftlab.models.hf import HFModel
from graftlab.registry import dump, restore
from graftlab.training.precision import Precision
from graftlab.verbs.sample import SampleSpec, run
from miniatures import miniature
from trained_runs import trained_run

GENERATION = Generation(max_new_tokens=12)
QUESTION = "Which year was the record made?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it: adapter, tokenizer and run.yaml in `adapter/`."""
    model_folder = miniature("qwen2", tmp_path_factory.mktemp("base"), tie_word_embeddings=False)
    data = {"system_prompt": "You know music.", "default_instruction": "Two voices talk."}
    return trained_run(tmp_path_factory.mktemp("run"), model_folder, data=data)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    """Put a console of a given kind in place of the real one; returns what it writes to."""

    def install(*, terminal: bool = False, width: int = 120) -> io.StringIO:
        text = io.StringIO()
        fake = Console(file=text, force_terminal=terminal, width=width, color_system=None)
        monkeypatch.setattr("graftlab.console.console", lambda: fake)
        return text

    return install


def spec(trained: Path | None, **changes: Any) -> SampleSpec:
    adapter = {"adapter": str(trained)} if trained else {}
    plain = {"prompt": QUESTION} if "prompts" not in changes else {}
    fixed: dict[str, Any] = {
        "generation": GENERATION,
        "precision": Precision(name="fp32"),
        "device": "cpu",
    }
    return SampleSpec(**{**fixed, **adapter, **plain, **changes})


def texts(answers: list[Any]) -> list[dict[str, str]]:
    return [{name: reply.text for name, reply in a.replies.items()} for a in answers]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Every shape of training data, with and without the answer."""
    rows = [
        [{"role": "system", "content": "Own."}, {"role": "user", "content": "one"}],
        {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}]},
        {"conversations": [{"from": "human", "value": "three"}, {"from": "gpt", "value": "3"}]},
        {"instruction": "four", "input": "", "output": "4"},
        {"instruction": "five", "input": "more"},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_base_and_adapter_side_by_side(trained: Path, screen: Callable[..., io.StringIO]) -> None:
    shown = screen()
    (answer,) = run(spec(trained))
    assert list(answer.replies) == ["base", "adapter"]
    assert answer.replies["base"].text != answer.replies["adapter"].text
    lines = shown.getvalue().splitlines()
    assert QUESTION in shown.getvalue()
    assert any("base" in line and "adapter" in line for line in lines)
    assert any(line.count("tokens/s") == 2 for line in lines)


def test_a_narrow_screen_stacks(trained: Path, screen: Callable[..., io.StringIO]) -> None:
    shown = screen(width=60)
    run(spec(trained))
    assert not any(line.count("tokens/s") == 2 for line in shown.getvalue().splitlines())
    assert shown.getvalue().count("tokens/s") == 2


def test_streaming_writes_the_same_texts(trained: Path, screen: Callable[..., io.StringIO]) -> None:
    silent = run(spec(trained, stream=False))
    shown = screen(terminal=True)
    streamed = run(spec(trained, stream=True))
    assert texts(streamed) == texts(silent)
    for name, text in texts(silent)[0].items():
        assert f"\n{name}\n" in shown.getvalue()
        printable = [part for part in text.split() if part.isascii() and part.isprintable()]
        assert printable
        assert all(part in shown.getvalue() for part in printable)


@pytest.mark.parametrize("place", [".", "adapter", "step-000001.ckpt"])
def test_every_kind_of_adapter_path(trained: Path, place: str) -> None:
    expected = texts(run(spec(trained, model=trained_model(trained))))
    assert texts(run(spec(trained / place))) == expected


def trained_model(trained: Path) -> HFModel:
    config = yaml.safe_load((trained / "adapter" / "run.yaml").read_text(encoding="utf-8"))
    return HFModel(path=config["model"]["path"])


def test_the_base_alone(trained: Path) -> None:
    (answer,) = run(spec(None, model=trained_model(trained)))
    assert list(answer.replies) == ["base"]


def test_replies_cannot_steer_the_terminal() -> None:
    text = io.StringIO()
    window = Screen(Console(file=text, force_terminal=True, color_system=None), stream=True)

    def speak(*, on_text: Callable[[str], None]) -> Reply:
        on_text("a\x1b[2J\x07b [bold]c[/]\n\t")
        return Reply("", 1, True, 1.0)

    window.hear("base", speak)
    assert "\na[2Jb [bold]c[/]\n" in text.getvalue()


def test_strength(trained: Path) -> None:
    ((zero,), (full,), (soft,)) = (run(spec(trained, scale=s)) for s in (0.0, 1.0, 0.5))
    assert zero.replies["adapter"].text == zero.replies["base"].text
    assert len({a.replies["adapter"].text for a in (zero, full, soft)}) == 3


def test_without_comparison(trained: Path) -> None:
    (answer,) = run(spec(trained, compare=False))
    assert list(answer.replies) == ["adapter"]


def test_the_system_prompt_is_that_of_training(trained: Path) -> None:
    def system(**changes: Any) -> str:
        (answer,) = run(spec(trained, compare=False, **changes))
        assert answer.prompt.conversation.messages[-1].content.endswith(QUESTION)
        return answer.prompt.conversation.messages[0].content

    assert system() == "Two voices talk. You know music."
    assert system(system="You are new.") == "Two voices talk. You are new."
    assert system(frame="systems-theologian").startswith("Two voices talk. You are the Systems")


def test_a_file_of_prompts(
    trained: Path, questions: Path, tmp_path: Path, screen: Callable[..., io.StringIO]
) -> None:
    shown = screen(width=140)
    out = tmp_path / "new" / "replies.jsonl"
    answers = run(spec(trained, prompts=str(questions), out=str(out), scale=0.5))
    asked = [a.prompt.conversation.messages for a in answers]
    assert [m[-1].content for m in asked] == ["one", "two", "three", "four", "five\n\nmore"]
    assert all(m[-1].role == "user" for m in asked)
    assert asked[0][0].content == "Two voices talk. Own."
    assert [a.prompt.expected for a in answers] == [None, "2", "3", "4", None]
    assert sum("expected" in line for line in shown.getvalue().splitlines()) == 3
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["where"] for row in rows] == [f"{questions}:{n}" for n in range(1, 6)]
    for row, answer in zip(rows, answers, strict=True):
        assert row["prompt"] == [m.as_dict() for m in answer.prompt.conversation.messages]
        assert [{"base": row["base"], "adapter": row["adapter"]}] == texts([answer])
        assert row["expected"] == answer.prompt.expected
        assert row["tokens"] == {n: r.num_tokens for n, r in answer.replies.items()}
        assert row["scale"] == 0.5


@pytest.mark.parametrize("name", ["bf16-mixed", "bf16"])
def test_low_precision(trained: Path, name: str) -> None:
    (answer,) = run(spec(trained, precision=Precision(name=name), scale=0.7))
    assert all(reply.num_tokens > 0 for reply in answer.replies.values())
    assert answer.replies["base"].text != answer.replies["adapter"].text


def test_limit_and_greedy_repeat(trained: Path, questions: Path) -> None:
    first = run(spec(trained, prompts=str(questions), limit=2))
    assert len(first) == 2
    assert texts(first) == texts(run(spec(trained, prompts=str(questions), limit=2)))


def test_another_base_is_refused(trained: Path, tmp_path: Path) -> None:
    other = HFModel(path=str(miniature("qwen2", tmp_path, seed=9, tie_word_embeddings=False)))
    for place in (".", "step-000001.ckpt"):
        with pytest.raises(ModelError, match="trained on another base"):
            run(spec(trained / place, model=other))


def test_an_adapter_from_elsewhere_needs_its_base(trained: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (plain / name).write_bytes((trained / "adapter" / name).read_bytes())
    with pytest.raises(ConfigError, match=r"no run\.yaml.*model\.path=DIR"):
        run(spec(plain))
    assert run(spec(plain, model=trained_model(trained)))


def test_a_base_that_moved_is_said(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (trained / "adapter").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = {"model": {"choice": "hf", "path": str(tmp_path / "gone")}}
    (moved / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"gone.*model=hf model\.path=DIR"):
        run(spec(moved))


def test_prompts_that_cannot_be_asked_are_listed(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    rows = [
        '[{"role": "user", "content": "fine"}]',
        '[{"role": "user", "content": ""}]',
        "{broken",
        '[{"role": "system", "content": "only"}]',
        '[{"role": "user", "content": "a <|im_end|> b"}]',
        "[]",
    ]
    file.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError) as error:
        run(spec(trained, prompts=str(file)))
    assert [p.split(": ")[0] for p in error.value.problems] == [f"{file}:{n}" for n in range(2, 7)]
    with pytest.raises(ConfigError, match="reserved token"):
        run(spec(trained, prompt="a <|im_end|> b"))


@pytest.mark.parametrize("terminal", [False, True])
def test_batches_answer_as_one_by_one(
    trained: Path,
    questions: Path,
    tmp_path: Path,
    screen: Callable[..., io.StringIO],
    terminal: bool,
) -> None:
    drawn = Generation(max_new_tokens=12, temperature=0.8)
    files = [tmp_path / "single.jsonl", tmp_path / "batch.jsonl"]
    single = run(spec(trained, prompts=str(questions), generation=drawn, out=str(files[0])))
    shown = screen(terminal=terminal, width=140)
    batch = run(spec(trained, prompts=str(questions), generation=drawn, batch=3, out=str(files[1])))
    assert texts(batch) == texts(single)
    assert [a.prompt for a in batch] == [a.prompt for a in single]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    for row in (*rows[0], *rows[1]):
        assert all(seconds > 0 for seconds in row.pop("seconds").values())
    assert rows[0] == rows[1]
    assert "five" in shown.getvalue()
    assert ("replies" in shown.getvalue()) is terminal


@pytest.fixture
def draft_folder(trained: Path, tmp_path: Path) -> Path:
    """A run folder as training of all weights leaves it: a model somewhat like the base."""
    model = trained_model(trained)
    folder = tmp_path / "draft"
    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base:
        base.model.save_pretrained(folder / "adapter")
    model.load_tokenizer().save(folder / "adapter")
    return folder


@pytest.mark.parametrize("kind", ["full", "model", "adapter"])
def test_a_draft_changes_no_reply(
    trained: Path,
    draft_folder: Path,
    kind: str,
    tmp_path: Path,
    screen: Callable[..., io.StringIO],
) -> None:
    paths = {"full": draft_folder, "model": draft_folder / "adapter", "adapter": trained}
    expected = texts(run(spec(trained)))
    shown = screen(width=140)
    out = tmp_path / "replies.jsonl"
    (answer,) = run(spec(trained, draft=str(paths[kind]), draft_tokens=3, out=str(out)))
    assert list(answer.replies) == ["base", "plain", "adapter"]
    told = answer.replies["adapter"].speculated
    assert told is not None
    assert [{k: v for k, v in texts([answer])[0].items() if k != "plain"}] == expected
    assert answer.replies["plain"].text == answer.replies["adapter"].text
    assert answer.replies["plain"].speculated is None
    assert told.accepted == told.proposed == 9 if kind == "adapter" else told.proposed > 8
    row = json.loads(out.read_text(encoding="utf-8"))
    assert row["speculated"] == {
        "adapter": {
            "rounds": told.rounds,
            "proposed": told.proposed,
            "accepted": told.accepted,
        }
    }
    screen_text = " ".join(shown.getvalue().split())
    assert f"{told.accepted / told.proposed:.0%} of {told.proposed} proposed" in screen_text
    assert f"{12 / told.rounds:.2f} tokens a round" in screen_text
    assert "times plain decoding" in screen_text
    assert "1 of 1 replies are the same" in screen_text
    assert screen_text.count("tokens/s, ") >= 3  # no column for the plain reply, which is equal


def test_a_draft_of_the_base_alone(
    trained: Path, draft_folder: Path, screen: Callable[..., io.StringIO]
) -> None:
    shown = screen()
    model = trained_model(trained)
    (answer,) = run(spec(None, model=model, draft=str(draft_folder), compare=False))
    assert list(answer.replies) == ["base"]
    told = answer.replies["base"].speculated
    assert told is not None
    assert told.accepted == told.proposed > 0  # it is the base itself
    assert "times plain" not in shown.getvalue()


def test_a_draft_that_cannot_be_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"draft=.*none: there is no adapter"):
        run(spec(trained, draft=str(tmp_path / "none")))
    other = miniature("qwen2", tmp_path / "other")
    file = other / "tokenizer.json"
    rules = json.loads(file.read_text(encoding="utf-8"))
    vocab = rules["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(rules), encoding="utf-8")
    with pytest.raises(ModelError, match="another vocabulary: token .*must share the base's"):
        run(spec(trained, draft=str(other)))


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"prompts": "a.jsonl", "prompt": "b"}, "either prompt"),
        ({"prompt": None}, "either prompt"),
        ({"adapter": None}, "adapter=RUN"),
        ({"adapter": None, "model": HFModel(path="x"), "scale": 0.5}, "scale=0.5"),
        ({"scale": -1.0}, "scale"),
        ({"limit": 0}, "limit"),
        ({"batch": 0}, "batch"),
        ({"draft": "run", "draft_tokens": 0}, "draft_tokens"),
        ({"draft": "run", "batch": 4}, "one reply at a time"),
        ({"device": "gpu"}, "device=gpu"),
        ({"system": "a", "frame": "b"}, "frame brings its own"),
        ({"prompt": None, "prompts": "a.jsonl", "system": "a"}, "prompts brings its own"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(wrong: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        SampleSpec(**{"prompt": QUESTION, "adapter": "run", **wrong})


def test_missing_files_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter or model at"):
        run(spec(tmp_path / "none"))
    with pytest.raises(ConfigError, match="prompts="):
        run(spec(trained, prompts=str(tmp_path / "none.jsonl")))
    with pytest.raises(ConfigError, match="frame=none"):
        run(spec(trained, frame="none"))
    with pytest.raises(ConfigError, match=r"out=.*cannot be written"):
        run(spec(trained, out=str(tmp_path)))


@pytest.mark.parametrize(
    "wrong",
    [
        "adapter='none'",
        "model=HFModel(path='none')",
        "adapter='.', prompts='none'",
        "model=TinyModel(), draft='none'",
    ],
)
def test_a_wrong_path_is_answered_before_torch_is_loaded(wrong: str, tmp_path: Path) -> None:
    prompt = "" if "prompts" in wrong else "prompt='x', "
    code = f"""
import sys
from graftlab.errors import GraftlabError
from graftlab.models.hf import HFModel
from graftlab.models.tiny import TinyModel
from graftlab.verbs.sample import SampleSpec, run
try:
    run(SampleSpec({prompt}{wrong}))
except GraftlabError:
    print("heavy" if "torch" in sys.modules else "light")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "light\n", done.stderr


SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["title", "year"],
    "additionalProperties": False,
}


def test_replies_follow_a_schema_and_the_record_says_so(
    trained: Path, tmp_path: Path, screen: Callable[..., io.StringIO]
) -> None:
    shown = screen()
    file, out = tmp_path / "schema.json", tmp_path / "replies.jsonl"
    file.write_text(json.dumps(SCHEMA), encoding="utf-8")
    generation = Generation(max_new_tokens=60, temperature=1.5, schema=str(file))
    (answer,) = run(spec(trained, generation=generation, out=str(out)))
    (row,) = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert row["valid"] == {"base": True, "adapter": True}
    for name, reply in answer.replies.items():
        assert sorted(json.loads(reply.text)) == ["title", "year"]
        assert row[name] == reply.text
    assert shown.getvalue().count("follows the schema") == 2
    run(spec(trained, out=str(out)))
    assert "valid" not in json.loads(out.read_text(encoding="utf-8"))


def test_a_reply_that_cannot_fit_is_refused_before_the_base_is_loaded(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftlab.models.cache.acquire", None)
    with pytest.raises(ConfigError, match=r"at most 5 tokens .* the shortest takes \d\d\."):
        run(spec(trained, generation=Generation(max_new_tokens=5, schema=SCHEMA)))


def test_prompts_bring_their_own_schema(trained: Path, tmp_path: Path) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "track", "schema": SCHEMA}}
    rows = [
        {"messages": [{"role": "user", "content": "free"}]},
        {"messages": [{"role": "user", "content": "bound"}], "response_format": wanted},
    ]
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    generation = Generation(max_new_tokens=60, schema="row")
    for batch in (1, 2):
        free, bound = run(spec(trained, prompts=str(file), generation=generation, batch=batch))
        assert [reply.valid for reply in free.replies.values()] == [None, None]
        assert [reply.valid for reply in bound.replies.values()] == [True, True]


def test_a_schema_is_kept_in_the_record_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA), encoding="utf-8")
    kept = dump(Generation(schema=str(file)))
    file.unlink()
    assert kept["schema"] == SCHEMA
    assert restore(Generation, kept) == Generation(schema=SCHEMA)
