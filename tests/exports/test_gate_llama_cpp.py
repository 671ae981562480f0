"""llama.cpp itself as a runtime: miniature GGUF files answer as trained, and faults are refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import gated
from afm_adapters import hf_run, run_on
from graftlab.errors import ModelError
from graftlab.exports.gguf import GGUF
from graftlab.exports.gguf_lora import GGUFLora
from graftlab.exports.merged import Merged
from graftlab.exports.parity.gate import require_as_trained
from graftlab.exports.parity.record import AS_TRAINED, REFUSED
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.base import NotHere, Runtime
from graftlab.exports.runtimes.llama_cpp import llama_cpp
from graftlab.exports.source import Trained, load
from graftlab.exports.target import Target
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import read_gguf
from miniatures import miniature

pytest.importorskip("xllamacpp")
gguf_files = pytest.importorskip("gguf_files")
pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]


@dataclass(kw_only=True)
class MergedFile(Target):
    """A target from outside, with a runtime of its own: a merged model in one GGUF file."""

    changes: dict[str, Any] = field(default_factory=dict)

    def check(self, adapter: Trained) -> list[str]:
        return Merged().check(adapter)

    def write(self, adapter: Trained, folder: Path) -> None:
        merged = folder / "merged"
        merged.mkdir()
        Merged().write(adapter, merged)
        gguf_files.write_gguf(merged, folder / "model.gguf", **self.changes)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        return []

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        return llama_cpp(folder / "model.gguf")

    def bounds(self, folder: Path) -> Bounds:
        return Bounds(kl=1e-5)


KINDS = ["llama", *(pytest.param(k, marks=pytest.mark.slow) for k in ("qwen2", "qwen3", "gemma3"))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_answers_as_trained(kind: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", kind)
    report = gated.gated(MergedFile(), run, tmp_path / "out", tokens=6)
    found = report.measured
    assert report.verdict == AS_TRAINED, report.why
    assert found is not None
    assert found.runtime.startswith("llama.cpp")
    assert (found.same_prompts, found.differing, found.endless) == (2, 0, [])
    assert found.largest < 1e-2
    assert found.kl < 1e-5 < found.moved
    assert found.nll_control is None, "the base is not in the file"


@pytest.mark.parametrize(
    "quant", ["f32", *(pytest.param(q, marks=pytest.mark.slow) for q in ("f16", "bf16", "q8_0"))]
)
def test_a_gguf_export_is_asked_in_llama_cpp(quant: str, tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "llama")
    report = gated.gated(GGUF(quant=quant), run, tmp_path / "out", tokens=6)
    assert report.verdict == AS_TRAINED, report.why
    found = report.measured
    assert found is not None
    assert (found.same_prompts, found.endless) == (2, [])
    assert found.kl < found.moved / 20


@pytest.mark.slow
def test_four_bits_of_a_small_model_are_too_few(tmp_path: Path) -> None:
    run = hf_run(tmp_path / "made", "llama")
    report = gated.gated(GGUF(quant="q4_0"), run, tmp_path / "out", tokens=6)
    found = report.measured
    assert found is not None
    if report.verdict == REFUSED:
        assert "where rounding to q4_0 explains" in report.why
    with pytest.raises(ModelError, match=r"target.quant=q8_0 or f16 keeps more of it"):
        require_as_trained(
            replace(report, verdict=REFUSED, why="KL", curable=True), GGUF(quant="q4_0")
        )


def test_an_adapter_of_gguf_is_asked_beside_its_base(tmp_path: Path) -> None:
    """rsLoRA, whose scale the usual converter gets wrong; the control is the base's file alone."""
    run, target = hf_run(tmp_path / "made", "llama", rslora=True), GGUFLora(base="f32")
    report = gated.gated(target, run, tmp_path / "out", tokens=6)
    assert report.verdict == AS_TRAINED, report.why
    found = report.measured
    assert found is not None
    assert found.kl < 1e-5 < found.moved
    assert found.nll_control == pytest.approx(found.nll_base, abs=1e-4)
    wrong = gated.gated(target, run, tmp_path / "wrong", plain_scale, tokens=6)
    assert wrong.verdict == REFUSED
    assert "as the adapter at 0.5 times its scale: the scale is wrong" in wrong.why
    alone = GGUFLora().runtime(load(str(run)), tmp_path)
    assert isinstance(alone, NotHere)
    assert "target.base=f16 writes one" in alone.why


def test_a_file_is_asked_with_the_template_of_training(tmp_path: Path) -> None:
    """Its own is another, as where a base model was taught to chat."""
    made = miniature("llama", tmp_path / "llama")
    base = gguf_files.write_gguf(made, tmp_path / "base.gguf", kind="F32")
    template = tmp_path / "notes.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    run, target = run_on(GGUFModel(path=str(base), template=str(template)), tmp_path), GGUFLora()
    report = gated.gated(target, run, tmp_path / "out", tokens=4)
    assert report.verdict == AS_TRAINED, report.why
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template.read_text()
    (told,) = target.check(load(str(run)))
    assert told.endswith("--lora adapter.gguf --jinja --chat-template-file chat_template.jinja")
    own = run_on(GGUFModel(path=str(base)), tmp_path / "own")
    assert target.check(load(str(own)))[0].endswith("--lora adapter.gguf")


def plain_scale(folder: Path) -> None:
    """alpha / r of LoRA, where rsLoRA has alpha / √r."""
    file = folder / "adapter.gguf"
    alpha = read_gguf(file).metadata["adapter.lora.alpha"]
    before, after = (struct.pack("<f", each) for each in (alpha, alpha / 2))
    content, key = file.read_bytes(), b"adapter.lora.alpha" + struct.pack("<I", 6)
    assert content.count(key + before) == 1
    file.write_bytes(content.replace(key + before, key + after))


def no_pairs(weight: Any, heads: int) -> Any:
    return weight


@pytest.mark.slow
def test_faults_of_a_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hf_run(tmp_path / "made", "llama")
    chat = "{% for m in messages %}{{ m['content'] }}{% endfor %}<|im_start|>"
    other = MergedFile(changes={"tokenizer__chat_template": chat})
    report = gated.gated(other, run, tmp_path / "template", tokens=4)
    assert report.verdict == REFUSED
    assert "the chat template or the tokenizer is another" in report.why
    assert "KL" not in report.why, "the weights are right"
    rounded = gated.gated(MergedFile(changes={"kind": "Q4_0"}), run, tmp_path / "q4", tokens=4)
    assert rounded.verdict == REFUSED
    assert "where rounding explains" in rounded.why
    monkeypatch.setattr(gguf_files, "_in_pairs", no_pairs)
    turned = gated.gated(MergedFile(), run, tmp_path / "turned", tokens=4)
    assert turned.verdict == REFUSED
    assert "KL" in turned.why


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    runtime = llama_cpp(tmp_path / "model.gguf")
    assert isinstance(runtime, Runtime)
    with pytest.raises(ModelError, match=r"llama.cpp does not load model.gguf"), runtime.opened():
        pass


def test_without_llama_cpp_it_is_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlab.exports.runtimes.llama_cpp.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    found = llama_cpp(tmp_path / "model.gguf")
    assert isinstance(found, NotHere)
    assert "graftlab[gguf]" in found.why
