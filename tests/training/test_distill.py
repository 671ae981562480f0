"""Runs that distil: a student nears its teacher, which stays as it is; exact resume; refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graftlab.adapters.draft import DraftModel
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError, ModelError, Paused, ResumeError
from graftlab.generation.sampling import Generation
from graftlab.models.cache import forget
from graftlab.models.hf import HFModel
from graftlab.objectives.distill import Distill
from graftlab.objectives.policy import Policy
from graftlab.registry import dump, restore
from graftlab.tracking.identity import identity
from graftlab.training.observer import Observer
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.training.teacher import find, resolve_objective
from graftlab.verbs.sample import SampleSpec
from graftlab.verbs.sample import run as sample
from miniatures import miniature
from slower import mostly_slow


@pytest.fixture(scope="module")
def teacher(root, tmp_path_factory) -> Path:
    """A run of LoRA on the base, long enough to differ from it."""
    from training_spec import small_spec

    folder = tmp_path_factory.mktemp("teacher") / "run"
    run(replace(small_spec(root), lr=2e-2, max_steps=12, run_dir=str(folder)))
    return folder


@pytest.fixture
def draft(spec, teacher) -> TrainSpec:
    """A one-layer student of that teacher."""
    return replace(
        spec,
        model=DraftModel(of=str(teacher), layers=1, hidden=32),
        objective=Distill(teacher=str(teacher)),
        lora=Lora(full=True),
        lr=1e-2,
        max_steps=30,
    )


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(spec: TrainSpec) -> list[dict[str, str]]:
    with (Path(spec.run_dir) / "train_log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_student_nears_its_teacher(draft, teacher):
    before = tree(teacher)
    result = run(draft)
    first, last = rows(draft)[0], rows(draft)[-1]
    assert result.score < 0.6 * result.baseline
    assert float(last["valid/acceptance"]) > 1.3 * float(first["valid/acceptance"])
    assert float(last["valid/accepted_tokens"]) > float(first["valid/accepted_tokens"]) > 0
    assert set(result.metrics) == {"valid/nll", "valid/acceptance", "valid/accepted_tokens"}
    written = json.loads((Path(draft.run_dir) / "result.json").read_text())
    assert written["metrics"] == result.metrics
    assert "valid/acceptance: " in (Path(result.adapter) / "card.md").read_text()
    assert tree(teacher) == before
    # What was trained stands alone: a model that needs neither base nor teacher.
    alone = HFModel(path=result.adapter)
    assert alone.load_tokenizer().fingerprint == find(str(teacher)).load_tokenizer().fingerprint
    base = alone.load(dtype=torch.float32, device=torch.device("cpu"))
    assert base.num_parameters == result.trainable_parameters
    short = Generation(max_new_tokens=3)
    (answer,) = sample(SampleSpec(adapter=draft.run_dir, prompt="count to 3", generation=short))
    assert set(answer.replies) == {"base", "adapter"}


def test_the_teacher_is_asked_frozen_and_once(draft, monkeypatch):
    import graftlab.training.run as module

    seen: list[Policy] = []

    def watched(base, adapter, teacher=None):
        seen.append(teacher)
        return Policy(base, adapter, teacher)

    monkeypatch.setattr(module, "Policy", watched)
    forget()
    loads, load = [], HFModel.load
    monkeypatch.setattr(HFModel, "load", lambda *a, **k: loads.append(a[0]) or load(*a, **k))
    run(replace(draft, max_steps=2))
    run(replace(draft, max_steps=2, lr=2e-2, run_dir=draft.run_dir + "-2"))
    assert len(loads) == 2  # teacher and student, for both runs
    (asked, again) = seen
    assert asked.base is again.base
    assert not asked.base.model.training
    parameters = list(asked.base.model.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in parameters)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16"])
def test_masters_are_fp32_and_learn(draft, precision):
    from safetensors.torch import load_file

    spec = replace(draft, precision=replace(draft.precision, name=precision))
    result = run(spec)
    assert result.score < 0.7 * result.baseline
    stored = {t.dtype for t in load_file(Path(result.adapter) / "model.safetensors").values()}
    assert stored == {torch.float32 if precision == "bf16-mixed" else torch.bfloat16}


class PauseAt(Observer):
    def __init__(self, step: int) -> None:
        self.rungs = (step,)

    def verdict(self, step: int) -> str | None:
        return "a pause"


@pytest.mark.parametrize("on", mostly_slow(["data", "teacher"], "teacher"))
def test_a_resumed_run_is_the_whole_run(draft, tmp_path, on):
    objective = replace(draft.objective, on=on, samples_tokens=8)
    whole = replace(draft, objective=objective, max_steps=12, run_dir=str(tmp_path / "whole"))
    parts = replace(whole, run_dir=str(tmp_path / "parts"))
    run(whole)
    with pytest.raises(Paused):
        run(parts, observer=PauseAt(7))
    run(replace(parts, resume="auto"))
    found = [
        (tmp_path / name / "adapter-final" / "model.safetensors").read_bytes()
        for name in ("whole", "parts")
    ]
    assert found[0] == found[1]


def test_a_student_may_be_an_adapter_on_a_pretrained_model(draft, root, tmp_path):
    """Any model of the teacher's tokenizer learns; the seam is the objective, not the student."""
    miniature("qwen2", tmp_path / "small", seed=5, num_hidden_layers=1)
    spec = replace(draft, model=HFModel(path=str(tmp_path / "small")), lora=Lora(rank=4))
    result = run(spec)
    assert result.score < result.baseline
    assert (Path(result.adapter) / "adapter_model.safetensors").is_file()


def test_answers_are_drawn_once_and_kept(draft, teacher, monkeypatch, tmp_path):
    import graftlab.generation.decode as decode

    objective = replace(draft.objective, on="teacher", samples_tokens=8)
    spec = replace(draft, objective=objective, max_steps=3, run_dir=str(tmp_path / "one"))
    asked, generate = [], decode.generate

    def counted(*arguments, **keywords):
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        asked.append(arguments[2])
        return generate(*arguments, **keywords)

    stop_at = None
    monkeypatch.setattr(decode, "generate", counted)
    run(spec)
    assert len(asked) == 15
    kept = {p.name: p.read_text() for p in (tmp_path / "one" / "teacher-answers").iterdir()}
    assert sorted(name.split("-")[0] for name in kept) == ["train", "train", "valid", "valid"]
    train = next(t for name, t in kept.items() if name.startswith("train") and "{" in t)
    first = json.loads(train.splitlines()[0])
    assert first["messages"][0]["content"] == "count to 0"
    # Killed after seven answers, and half a line of the eighth: the same answers in the end.
    parts = replace(spec, run_dir=str(tmp_path / "two"))
    asked.clear()
    stop_at = 7
    with pytest.raises(KeyboardInterrupt):
        run(parts)
    (partial,) = (tmp_path / "two" / "teacher-answers").glob("*.partial")
    assert partial.name.endswith(".partial")
    with partial.open("a") as file:
        file.write('{"messages": [{"ro')
    asked.clear()
    stop_at = None
    run(replace(parts, resume="auto"))
    assert len(asked) == 8
    assert {p.name: p.read_text() for p in (tmp_path / "two" / "teacher-answers").iterdir()} == kept
    assert rows(parts)[-1]["loss"] == rows(spec)[-1]["loss"]


def test_a_prompt_beyond_the_teacher_s_context_is_left_out(draft, root, tmp_path, capfd):
    narrow = miniature("qwen2", tmp_path / "narrow", seed=1, max_position_embeddings=60)
    lines = (root / "train.jsonl").read_text().splitlines()
    long = {"role": "user", "content": "count " * 70}
    short = {"role": "assistant", "content": "no"}
    lines.insert(3, json.dumps({"messages": [long, short]}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    objective = Distill(teacher=str(narrow), on="teacher", samples_tokens=4)
    data = replace(draft.data, train=str(tmp_path / "train.jsonl"))
    model = replace(draft.model, of=str(narrow))
    run(replace(draft, objective=objective, data=data, model=model, max_steps=2))
    assert "prompts that could not be asked and are left out: 1, such as" in capfd.readouterr().out
    kept = next((Path(draft.run_dir) / "teacher-answers").glob("train-*.jsonl"))
    assert [("left_out" in line) for line in kept.read_text().splitlines()].count(True) == 1


def test_it_does_not_train_jointly(draft, spec):
    from graftlab.training.joint.groups import unfit

    taught = replace(spec, objective=draft.objective)
    whole = replace(spec, lora=Lora(full=True))
    reasons = unfit([taught, whole, spec])
    assert "teacher" in reasons[0]
    assert "lora=none" in reasons[1]
    assert 2 not in reasons


def copied(teacher: Path, tmp_path: Path) -> Path:
    shutil.copytree(teacher, tmp_path / "copy")
    return tmp_path / "copy"


def test_another_teacher_is_another_run(draft, teacher, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = copied(teacher, tmp_path)
    (copy / "adapter" / "checksums.json").unlink()  # changed on purpose
    keys = []
    for change in (0.0, 1e-3):
        file = copy / "adapter" / "adapter_model.safetensors"
        tensors = {name: t + change for name, t in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
        objective = Distill(teacher=str(copy))
        resolve_objective(objective)
        keys.append(identity(dump(replace(draft, objective=objective))))
    assert keys[0] != keys[1]
    begun = restore(TrainSpec, dump(replace(draft, objective=objective)))
    save_file({name: t + 1 for name, t in tensors.items()}, file)
    with pytest.raises(ModelError, match="not the teacher this run began with"):
        run(begun)


def test_a_checkpoint_of_another_teacher_is_not_gone_on_from(draft, teacher, tmp_path):
    copy = copied(teacher, tmp_path)
    shutil.rmtree(copy / "adapter")
    shutil.copytree(copy / "adapter-final", copy / "adapter")
    spec = replace(draft, max_steps=8)
    with pytest.raises(Paused):
        run(spec, observer=PauseAt(3))
    other = replace(spec, objective=Distill(teacher=str(copy)), resume="auto")
    with pytest.raises(ResumeError, match="other configuration"):
        run(other)


def test_a_missing_teacher_is_named(draft, tmp_path):
    with pytest.raises(ModelError, match=r"objective\.teacher=.*nowhere"):
        run(replace(draft, objective=Distill(teacher=str(tmp_path / "nowhere"))))


def test_a_teacher_whose_base_was_replaced_is_refused(draft, root, teacher, tmp_path):
    copy = copied(teacher, tmp_path)
    miniature("qwen2", tmp_path / "base", seed=9)
    config = (copy / "adapter" / "run.yaml").read_text()
    moved = config.replace(str(root / "base"), str(tmp_path / "base"))
    assert moved != config
    (copy / "adapter" / "run.yaml").write_text(moved)
    (copy / "adapter" / "checksums.json").unlink()  # changed on purpose
    objective = Distill(teacher=str(copy))
    with pytest.raises(ModelError, match="trained on another base"):
        run(replace(draft, objective=objective))


def test_another_tokenizer_is_refused(draft, tmp_path):
    small = miniature("qwen2", tmp_path / "small", num_hidden_layers=1)
    content = json.loads((small / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    ids = {index: piece for piece, index in vocabulary.items()}
    vocabulary[ids[60]], vocabulary[ids[61]] = 61, 60
    (small / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"another tokenizer than the student.*model=draft"):
        run(replace(draft, model=HFModel(path=str(small))))


def test_another_template_is_refused_with_the_fix(draft, root, teacher, tmp_path):
    small = miniature("qwen2", tmp_path / "small", num_hidden_layers=1)
    template = (small / "chat_template.jinja").read_text()
    (small / "chat_template.jinja").write_text(template.replace("<|im_end|>\n", "<|im_end|>\n\n"))
    spec = replace(draft, model=HFModel(path=str(small)), max_steps=2)
    fix = teacher / "adapter" / "chat_template.jinja"
    with pytest.raises(ConfigError, match=f"another chat template.*model.template={fix}"):
        run(spec)
    assert run(replace(spec, model=replace(spec.model, template=str(fix)))).steps == 2


def test_fsdp_is_refused(draft):
    from graftlab.training.trainer import TrainerSpec

    with pytest.raises(ConfigError, match="trainer=fsdp2 shards a frozen base"):
        replace(draft, trainer=TrainerSpec(devices=2, strategy="fsdp2"))
