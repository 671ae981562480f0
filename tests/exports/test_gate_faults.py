"""Eight mistakes that exports are known for, planted in a merged folder: refused, and named.

An architecture with nothing planted passes; so do those of `test_gate.py`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import gated
from afm_adapters import hf_run
from gated import change_tensors
from graftlab.exports.merged import Merged
from graftlab.exports.parity.record import AS_TRAINED, REFUSED
from miniatures import miniature

pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]

QUICK, SLOW = ("qwen2", "gemma3"), ("llama", "qwen3", "phi3", "mistral")
ALL = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)]


def wrong_base(folder: Path, base: Path) -> None:
    """The update on the weights of another training of the same architecture."""
    other = load_file(miniature(base.name, base.parent / "other", seed=7) / "model.safetensors")
    own = load_file(base / "model.safetensors")
    change_tensors(folder, lambda name, t: t - own[name] + other[name])


def adapter_dropped(folder: Path, base: Path) -> None:
    shutil.copyfile(base / "model.safetensors", folder / "model.safetensors")


def requantised(folder: Path, base: Path) -> None:
    """Every matrix in four bits again, in blocks of 64, as a fuse into a 4-bit base leaves it."""

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim != 2 or "embed" in name or "lm_head" in name:
            return tensor
        blocks = tensor.reshape(-1, 64)
        step = blocks.abs().amax(1, keepdim=True) / 7
        return ((blocks / step).round() * step).view_as(tensor)

    change_tensors(folder, rounded)


def wrong_template(folder: Path, base: Path) -> None:
    file = folder / "chat_template.jinja"
    text = file.read_text()
    assert "'<|im_end|>\n'" in text
    file.write_text(text.replace("'<|im_end|>\n'", "'<|im_end|>'"))


def missing_stop(folder: Path, base: Path) -> None:
    file = folder / "generation_config.json"
    content = json.loads(file.read_text())
    assert 2 in content["eos_token_id"]
    file.write_text(json.dumps({**content, "eos_token_id": [0]}))


def unpermuted_rotary(folder: Path, base: Path) -> None:
    """Rows of q and k as another program turns them, in pairs and not in halves."""
    heads = {"q_proj": 4, "k_proj": 2}

    def in_pairs(weight: torch.Tensor, count: int) -> torch.Tensor:
        return weight.view(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    def turned(name: str, tensor: torch.Tensor) -> torch.Tensor:
        leaf = name.split(".")[-2]
        if leaf in heads and tensor.ndim == 2:
            return in_pairs(tensor, heads[leaf])
        if leaf == "qkv_proj":  # q, k and v of phi3 in one
            query, key, value = tensor.split((64, 32, 32))
            return torch.cat([in_pairs(query, 4), in_pairs(key, 2), value])
        return tensor

    change_tensors(folder, turned)


def wrong_scale(folder: Path, base: Path) -> None:
    """alpha / r where rsLoRA has alpha / √r, as a converter that does not know it."""
    own = load_file(base / "model.safetensors")
    change_tensors(folder, lambda name, t: own[name] + (t - own[name]) / 2)


def untied_head(folder: Path, base: Path) -> None:
    """A head of its own, as the file of the base before it was tied would have."""
    file = folder / "model.safetensors"
    state = load_file(file)
    embedding = state["model.embed_tokens.weight"]
    generator = torch.Generator().manual_seed(5)
    head = torch.randn(embedding.shape, generator=generator) * embedding.std()
    save_file({**state, "lm_head.weight": head}, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


FAULTS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "wrong base": (wrong_base, "is not the base's, and no adapter changes it: it is another base"),
    "adapter dropped": (adapter_dropped, "answers as the base alone: the adapter is not in it"),
    "requantised fuse": (requantised, "was rounded to four bits again"),
    "wrong template": (wrong_template, "prompts have other ids .* the chat template"),
    "missing stop": (missing_stop, r"do not end at <\|im_end\|>: the stop token is missing"),
    "unpermuted rotary": (unpermuted_rotary, "rows of .*proj.* are in another order"),
    "wrong scale": (wrong_scale, "as the adapter at 0.5 times its scale: the scale is wrong"),
    "untied head": (untied_head, "lm_head.weight is there, and the head was tied"),
}
TIED = ("qwen2", "gemma3")


def planted(kind: str, fault: str, run: Path, folder: Path) -> gated.Report:
    plant, _ = FAULTS[fault]
    base = run.parent / kind
    return gated.gated(Merged(), run, folder, lambda written: plant(written, base))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of an architecture, once; its folders are not changed."""
    runs: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in runs:
            runs[kind] = hf_run(tmp_path_factory.mktemp(kind), kind, targets="auto", rslora=True)
        return runs[kind]

    return run


def check(kind: str, fault: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    report = planted(kind, fault, made(kind), tmp_path / "export")
    assert report.verdict == REFUSED
    assert re.search(FAULTS[fault][1], report.why), report.why


@pytest.mark.parametrize("kind", ALL)
def test_no_false_alarm(kind: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    report = gated.gated(Merged(), made(kind), tmp_path / "export")
    assert report.verdict == AS_TRAINED, report.why
    found = report.measured
    assert found is not None
    assert found.moved > 0.01, "the adapter counts"
    assert found.kl < 1e-6
    assert (found.same_prompts, found.differing, found.replies) == (2, 0, 2)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_caught_and_named(
    fault: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    check("qwen2", fault, made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma3", *SLOW])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_caught_in_every_architecture(
    kind: str, fault: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    if fault == "untied head" and kind not in TIED:
        pytest.skip("its head is its own")
    check(kind, fault, made, tmp_path)
