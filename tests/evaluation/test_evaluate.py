"""`graftlab evaluate`: everybody is asked once, every reply is scored, and all of it is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.errors import ConfigError
from graftlab.evaluation import models
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.generation.decode import generate
from graftlab.generation.prompts import read_prompts
from graftlab.generation.sampling import Generation
from graftlab.models.cache import acquire, forget
from graftlab.models.hf import HFModel
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.serving.models import find_models, load_models
from graftlab.types import Conversation, Message
from graftlab.verbs.evaluate import run
from knocking import knock

Asked = Callable[..., EvaluateSpec]


class Counted:
    """`generate_batch`, counting the replies that it gives; it may be interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, most: int | None = None) -> None:
        self.count, self.most, self.real = 0, most, models.generate_batch
        monkeypatch.setattr(models, "generate_batch", self)

    def __call__(self, *asked: Any, on_reply: Any, **more: Any) -> Any:
        def counted(place: int, reply: Any) -> None:
            if self.count == self.most:
                raise KeyboardInterrupt
            self.count += 1
            on_reply(place, reply)

        return self.real(*asked, on_reply=counted, **more)


def test_replies_are_those_of_each_model_alone(
    asked: Asked, adapters: list[Path], prompts: Path
) -> None:
    found = run(asked())
    assert list(found.replies) == ["base", "one", "two"]
    served = find_models([str(path) for path in adapters], None)
    said = set()
    with acquire(served["base"].model, dtype=torch.float32, device=torch.device("cpu")) as base:
        ready = load_models(base, served, dtype=torch.float32)
        for name, model in ready.items():
            for place, prompt in enumerate(read_prompts(str(prompts))):
                turns = (Message("system", "You know music."), *prompt.conversation.messages)
                with model.speaking():
                    reply = generate(
                        base, model.tokenizer, Conversation(turns), Generation(max_new_tokens=8)
                    )
                (ours,) = found.replies[name][place]
                assert (ours.text, ours.num_tokens) == (reply.text, reply.num_tokens)
                said.add(ours.text)
    assert len(said) > 5, "they are told apart"


def test_what_is_written(asked: Asked, tmp_path: Path, prompts: Path) -> None:
    out = tmp_path / "out"
    found = run(asked(out=str(out)))
    assert {path.name for path in out.iterdir()} == {
        *("results.json", "replies.jsonl", "report.html", ".graftlab")
    }
    rows = [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]
    assert [row["reference"] for row in rows] == ["4", "6", "Yes.", "Ho", "Red"]
    assert rows[0]["where"] == f"{prompts}:1"
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is two and two?"}]
    for row, place in zip(rows, range(5), strict=True):
        for name, draws in row["replies"].items():
            (said,) = draws
            assert said["text"] == found.replies[name][place][0].text
            words = len(said["text"].split())
            assert (said["scores"]["style"]["avg_words"] > 0) == (words > 0)
            assert said["scores"]["exact_match"] == {"pct_exact": 0.0}
    results = json.loads((out / "results.json").read_text())
    assert results["prompts"] == 5
    assert results["models"]["one"]["metrics"]["exact_match"]["pct_exact"]["mean"] == 0
    tokens = [said.num_tokens for (said,) in found.replies["two"]]
    told = results["models"]["two"]["metrics"]["style"]["avg_tokens"]
    assert told["mean"] == sum(tokens) / 5
    assert told["low"] <= told["mean"] <= told["high"]
    pairs = {(one["against"], one["of"]) for one in results["comparisons"]}
    assert pairs == {("base", "one"), ("base", "two"), ("one", "two")}
    exact = [one for one in results["comparisons"] if one["measure"] == "pct_exact"]
    assert [one["verdict"] for one in exact] == ["not told apart"] * 3
    neither = [one for one in results["comparisons"] if one["measure"] == "avg_words"]
    assert [one["verdict"] for one in neither] == [None] * 3


def test_the_checkpoints_of_a_run_with_what_its_log_says(
    asked: Asked, adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two checkpoints with the weights of two adapters speak as those do."""
    kept, named = (
        tmp_path / "run" / "checkpoints",
        ("step-000005-valid-2.5.ckpt", "step-000010.ckpt"),
    )
    kept.mkdir(parents=True)
    for source, name in zip(adapters, named, strict=True):
        shutil.copyfile(source / "step-000001.ckpt", kept / name)
    (tmp_path / "run" / "train_log.csv").write_text("step,epoch,valid_loss\n5,1.0,2.53125\n")
    found = run(asked(adapters=[], checkpoints=str(tmp_path / "run"), out=str(tmp_path / "out")))
    theirs = run(asked())
    assert list(found.replies) == ["base", "step-5", "step-10"]
    for ours, name in zip(found.replies.values(), ("base", "one", "two"), strict=True):
        assert [[one.text for one in draws] for draws in ours] == [
            [one.text for one in draws] for draws in theirs.replies[name]
        ]
    models = json.loads((tmp_path / "out" / "results.json").read_text())["models"]
    first, second = models["step-5"], models["step-10"]
    assert (first["step"], first["epoch"], first["valid_loss"]) == (5, 1.0, 2.53125)
    assert second["step"] == 10
    assert "valid_loss" not in second
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "validation loss" in one]
    assert line.split()[3:] == ["–", "2.5312", "–"]
    with pytest.raises(ConfigError, match="there is no checkpoint in"):
        run(asked(adapters=[], checkpoints=str(tmp_path)))


def test_a_folder_of_somebody_else_is_refused_before_anything_is_asked(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="not of a comparison of ours"):
        run(asked(out=str(tmp_path / "mine")))
    assert counted.count == 0
    run(asked(out=str(tmp_path / "ours"), limit=1))
    (tmp_path / "ours" / "note.txt").write_text("kept")
    run(asked(out=str(tmp_path / "ours"), limit=2))
    assert (tmp_path / "ours" / "note.txt").read_text() == "kept"
    assert json.loads((tmp_path / "ours" / "results.json").read_text())["prompts"] == 2


def test_nobody_is_asked_twice(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, adapters: list[Path], tmp_path: Path
) -> None:
    counted = Counted(monkeypatch)
    first = run(asked(adapters=[str(adapters[0])], limit=3))
    assert counted.count == 6
    again = run(asked(adapters=[str(adapters[0])], limit=3))
    assert (counted.count, again.replies) == (6, first.replies)
    run(asked())  # two more prompts of base and one, five of two
    assert counted.count == 6 + 2 + 2 + 5
    run(asked(generation=Generation(max_new_tokens=7)))
    assert counted.count == 15 + 15, "another decoding is another reply"
    run(asked(scale=0.5))
    assert counted.count == 30 + 10, "the base has no strength"


def test_an_interrupted_evaluation_goes_on(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(asked(cache=None))
    with monkeypatch.context() as patch:
        counted = Counted(patch, most=7)
        with pytest.raises(KeyboardInterrupt):
            run(asked())
        assert counted.count == 7
    counted = Counted(monkeypatch)
    found = run(asked())
    assert counted.count == 15 - 7
    texts = {name: [said.text for (said,) in draws] for name, draws in found.replies.items()}
    expected = {name: [said.text for (said,) in draws] for name, draws in whole.replies.items()}
    assert texts == expected


def test_draws_differ_and_are_averaged(asked: Asked) -> None:
    found = run(asked(draws=3, generation=Generation(max_new_tokens=8, temperature=1.0)))
    draws = found.replies["one"][0]
    assert len({said.text for said in draws}) > 1
    values = found.values("one", ("style", "avg_tokens"))
    assert values[0] == sum(said.num_tokens for said in draws) / 3


def test_the_same_adapter_twice_is_not_told_apart(
    asked: Asked, adapters: list[Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(adapters[0], tmp_path / "copy")
    found = run(asked(adapters=[str(adapters[0]), str(copy)]))
    judged = [v for (one, two, _), v in found.verdicts.items() if "base" not in (one, two)]
    assert len(judged) > 10
    assert {verdict.word for verdict in judged} == {"", "not told apart"}
    assert all(verdict.contrast.difference.mean == 0 for verdict in judged)


def test_held_out_rows_are_asked_without_a_file(asked: Asked, data_file: Path) -> None:
    found = run(asked(prompts=None, metrics=Metrics(chosen={"style": Style()})))
    assert 1 <= len(found.prompts) < 12
    assert all(prompt.expected.startswith("Number ") for prompt in found.prompts if prompt.expected)
    assert {prompt.conversation.source for prompt in found.prompts} == {str(data_file)}


def test_bad_input_is_one_message(
    capsys: pytest.CaptureFixture[str], adapters: list[Path], prompts: Path, tmp_path: Path
) -> None:
    def said(*words: str) -> str:
        done = knock(capsys, "evaluate", str(adapters[0]), "device=cpu", *words)
        assert done.code == 2
        assert "Traceback" not in done.err
        return done.err

    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"prompt": "a"}\n{"prompt": "b", "reference": "c"}\n{"prompt": "d"}\n')
    message = said(f"prompts={bare}", "metrics=[style,exact-match]")
    assert f"{bare}:1: no `reference`, nor an answer at its end, for exact-match (2 rows" in message
    assert f"{bare}:3" in message
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n{"promt": "b"}\n{"prompt": "d", "options": ["x"]}\n')
    message = said(f"prompts={broken}")
    assert f"{broken}:2: unknown shape" in message
    assert f"{broken}:3: `options` must be at least two" in message
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "the file holds no rows" in said(f"prompts={empty}")
    assert "metrics=exact-mach is not one of" in said(f"prompts={prompts}", "metrics=[exact-mach]")
    assert "prompts=nowhere.jsonl does not exist" in said("prompts=nowhere.jsonl")
    assert "draws=2 would be the same reply" in said(f"prompts={prompts}", "draws=2")


def test_codes_are_widened_once_for_all_replies(
    asked: Asked, qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    seen: list[bool] = []
    real = models.generate_batch

    def watched(base: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(isinstance(p.data, QuantizedWeight) for p in base.model.parameters())
        return real(base, *rest, **more)

    monkeypatch.setattr(models, "generate_batch", watched)
    run(asked(adapters=[], model=HFModel(path=str(qwen2_folder), quantization=Int8())))
    assert seen
    assert not any(seen)
