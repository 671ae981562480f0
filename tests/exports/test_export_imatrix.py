"""`target.imatrix_rows`: an importance matrix of training rows, and what rounding makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import gated
from afm_adapters import hf_run, run_on
from chats import chats
from gguf_files import write_gguf
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.gguf import GGUF
from graftlab.exports.gguf.checking import read
from graftlab.exports.gguf.importance import FILE, read_importance
from graftlab.exports.merged import Merged
from graftlab.exports.ollama import Ollama
from graftlab.exports.parity.rows import training_rows
from graftlab.exports.source import Trained, load
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import read_gguf
from graftlab.models.gguf.packages import PACKAGES
from miniatures import miniature
from trained_runs import trained_run

gguf = pytest.importorskip("gguf")
pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.o_proj": "attn_output",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    data = {name: str(chats(folder / f"{name}.jsonl", 9)) for name in ("train", "valid")}
    base = miniature("llama", folder / "base")
    return trained_run(folder / "run", base, data={"choice": "jsonl", **data})


@pytest.fixture(scope="module")
def weighed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return written(GGUF(quant="q4_0", imatrix_rows=3), made, tmp_path_factory.mktemp("w") / "out")


def written(target: GGUF, run: Path, folder: Path) -> tuple[Path, list[str]]:
    """The file of an export, and what was found when it was read back."""
    adapter = load(str(run))
    gated.write(target, adapter, folder)
    return folder / "model.gguf", target.verify(adapter, folder)


def inputs(model: Any, rows: Iterable[list[int]]) -> dict[str, torch.Tensor]:
    """(n, in) what comes into matrices of a model, by their names in a GGUF file."""
    found: dict[str, list[torch.Tensor]] = {}
    for number, layer in enumerate(model.model.layers):
        for part, name in PARTS.items():
            told = found.setdefault(f"blk.{number}.{name}.weight", [])
            hook = lambda module, args, told=told: told.append(args[0][0])  # noqa: E731
            layer.get_submodule(part).register_forward_pre_hook(hook)
    with torch.no_grad():
        for ids in rows:
            model(input_ids=torch.tensor([ids]), use_cache=False)
    return {name: torch.cat(told) for name, told in found.items()}


def merged_model(adapter: Trained, folder: Path) -> Any:
    """Base and adapter as one, in plain transformers."""
    from transformers import AutoModelForCausalLM

    gated.write(Merged(dtype="fp32"), adapter, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_it_is_the_mean_of_squared_inputs(
    made: Path, weighed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    (file, facts), adapter = weighed, load(str(made))
    assert adapter.on_base is not None
    rows = training_rows(adapter.on_base, adapter.on_base.load_tokenizer(), 3)
    every = training_rows(adapter.on_base, adapter.on_base.load_tokenizer(), 99)
    assert rows == every[::3], "evenly spread over all nine"
    model = merged_model(adapter, tmp_path / "merged")
    told = read_importance(file.with_name(FILE))
    for name, values in inputs(model, rows).items():
        mean = values.double().square().mean(0).float()
        torch.testing.assert_close(torch.from_numpy(told.squares[name]), mean, rtol=1e-3, atol=1e-6)
    tokens = sum(map(len, rows))
    assert facts[-1] == (
        f"importance matrix of 14 matrices, from {tokens} tokens of 3 training rows (train.jsonl)"
    )
    plain, _ = written(GGUF(quant="q4_0"), made, tmp_path / "plain")
    blind, heeding = (errors(path, model, rows) for path in (plain, file))
    assert heeding < blind * 0.97


def test_it_is_said_as_llama_cpp_says_it(weighed: tuple[Path, list[str]]) -> None:
    """`llama-quantize --imatrix` reads three keys, and sums and counts of every matrix."""
    metadata = read_gguf(weighed[0]).metadata
    assert {k: v for k, v in metadata.items() if k.startswith("quantize.")} == {
        "quantize.imatrix.file": FILE,
        "quantize.imatrix.dataset": "train.jsonl",
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 3,
    }
    reader = gguf.GGUFReader(weighed[0].with_name(FILE))
    keys = {"general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"}
    assert keys <= reader.fields.keys()
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes["blk.1.ffn_down.weight.in_sum2"] == [128, 1], "columns first"
    assert shapes["blk.1.ffn_down.weight.counts"] == [1, 1]
    assert len(shapes) == 28


def errors(file: Path, model: Any, rows: Iterable[list[int]]) -> float:
    """Squared error of what matrices of a file make of their inputs, as a share, summed."""
    header, total = read_gguf(file), 0.0
    names = {theirs: ours for ours, theirs in PARTS.items()}
    for name, values in inputs(model, rows).items():
        _, number, part, _ = name.split(".")
        parameter = f"model.layers.{number}.{names[part]}.weight"
        wanted = values @ model.get_parameter(parameter).detach().T
        found = values @ read(header, parameter).T
        total += float((found - wanted).square().sum() / wanted.square().sum())
    return total


@pytest.mark.slow
def test_real_weights_answer_nearer_on_rows_that_were_not_seen(tmp_path: Path) -> None:
    cache = os.environ.get("GRAFTLAB_REAL_MODELS", "")
    path = Path(cache) / "models" / PACKAGES["smollm2-135m-instruct"].file
    if not cache or not path.is_file():
        pytest.skip("smollm2-135m-instruct is not in GRAFTLAB_REAL_MODELS")
    base = GGUFModel(path=str(path))
    run = run_on(base, tmp_path, targets=["q_proj"])
    config = run / "adapter" / "run.yaml"
    told = {**yaml.safe_load(config.read_text()), "data": {"choice": "elevator"}}
    config.write_text(yaml.safe_dump(told))
    plain, _ = written(GGUF(quant="q4_0"), run, tmp_path / "plain")
    file, _ = written(GGUF(quant="q4_0", imatrix_rows=20), run, tmp_path / "weighed")
    adapter = load(str(run))
    assert adapter.on_base is not None
    unseen = training_rows(adapter.on_base, adapter.on_base.load_tokenizer(), 80)[2::8]
    whole, _ = written(GGUF(quant="f32"), run, tmp_path / "whole")
    model: Any = GGUFModel(path=str(whole)).load(dtype=torch.float32, device=torch.device("cpu"))
    blind, heeding = (errors(f, model.model, unseen) for f in (plain, file))
    assert heeding < blind * 0.9


def test_where_it_has_no_place_it_is_refused(made: Path, tmp_path: Path) -> None:
    for target in (GGUF, Ollama):
        with pytest.raises(ConfigError, match=r"q8_0 rounds without an importance matrix; .*q4_0"):
            target(quant="q8_0", imatrix_rows=4)
    with pytest.raises(ConfigError, match=r"target.imatrix_rows"):
        GGUF(quant="q4_0", imatrix_rows=-1)
    run = hf_run(tmp_path / "bare", "llama")
    with pytest.raises(ModelError, match=r"needs training rows of the run: .*imatrix_rows=0 does"):
        GGUF(quant="q4_0", imatrix_rows=4).check(load(str(run)))


@pytest.mark.slow
def test_a_trained_module_and_dora_are_looked_into(tmp_path: Path) -> None:
    """Wrapped layers get what comes in as any other."""
    lora: dict[str, Any] = {"dora": True, "modules_to_save": ["down_proj"], "targets": ["q_proj"]}
    run = hf_run(tmp_path / "made", "llama", **lora)
    config = run / "adapter" / "run.yaml"
    data = {"choice": "jsonl", "train": str(chats(tmp_path / "train.jsonl", 4))}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "data": data}))
    file, _ = written(GGUF(quant="q4_0", imatrix_rows=2), run, tmp_path / "out")
    squares = read_importance(file.with_name(FILE)).squares
    assert squares["blk.0.ffn_down.weight"].min() > 0
    assert squares["blk.1.attn_q.weight"].min() > 0


def test_few_bits_of_few_bits_are_warned_of(tmp_path: Path) -> None:
    folder = miniature("llama", tmp_path / "base")

    def notes(kind: str, quant: str) -> str:
        place = tmp_path / kind
        place.mkdir(exist_ok=True)
        base = GGUFModel(path=str(write_gguf(folder, place / "base.gguf", kind=kind)))
        run = place / "run" if (place / "run").is_dir() else run_on(base, place)
        return " ".join(GGUF(quant=quant).check(load(str(run))))

    assert "may fall back onto them, and lose the adapter" in notes("Q4_0", "q4_0")
    assert "fall back" not in notes("Q4_0", "q8_0") + notes("Q8_0", "q4_0")
