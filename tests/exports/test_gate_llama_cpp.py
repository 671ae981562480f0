"""llama.cpp itself as a runtime: miniature GGUF files answer as trained, and faults are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gated
from afm_adapters import hf_run
from graftlab.exports.merged import Merged
from graftlab.exports.parity.record import AS_TRAINED, REFUSED
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.base import NotHere, Runtime
from graftlab.exports.runtimes.llama_cpp import llama_cpp
from graftlab.exports.source import Trained
from graftlab.exports.target import Target

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
    from graftlab.errors import ModelError

    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    runtime = llama_cpp(tmp_path / "model.gguf")
    assert isinstance(runtime, Runtime)
    with pytest.raises(ModelError, match=r"llama.cpp does not load model.gguf"), runtime.opened():
        pass


def test_without_llama_cpp_it_is_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = llama_cpp(tmp_path / "model.gguf")
    assert isinstance(found, NotHere)
    assert "graftlab[gguf]" in found.why
