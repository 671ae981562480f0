"""Blocks of a GGUF file become the values that gguf-py gives, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gguf_files import gguf, random_blocks
from graftlab.models.gguf.blocks import PLAIN, Blocks
from graftlab.models.gguf.file import KINDS
from graftlab.models.quantization.weight import QuantizedWeight
from slower import mostly_slow

OUT, IN = 12, 512
PACKED = [name for name, *_ in KINDS.values() if name not in PLAIN]


def rows_of(kind: str) -> np.ndarray:
    """(OUT, bytes of a row)"""
    if kind in PACKED:
        return random_blocks((OUT, IN), kind)
    values = np.random.default_rng(0).normal(size=(OUT, IN)).astype(np.float32)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8)


def wanted(rows: np.ndarray, kind: str) -> torch.Tensor:
    number = gguf.GGMLQuantizationType[kind]
    own = rows.view({"F32": np.float32, "F16": np.float16}.get(kind, np.uint8))
    return torch.from_numpy(gguf.quants.dequantize(own, number).astype(np.float32))


def weight(kind: str, dtype: torch.dtype = torch.float32) -> QuantizedWeight:
    return QuantizedWeight(Blocks(kind), [torch.from_numpy(rows_of(kind))], (OUT, IN), dtype)


def test_sizes_are_those_of_gguf_py() -> None:
    theirs = {
        number.value: (number.name, *gguf.GGML_QUANT_SIZES[number])
        for number in gguf.GGMLQuantizationType
    }
    assert {number: theirs[number] for number in KINDS} == KINDS


@pytest.mark.parametrize("kind", [name for name, *_ in KINDS.values()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_gguf_py(kind: str, dtype: torch.dtype) -> None:
    expected = wanted(rows_of(kind), kind)
    assert expected.abs().max() > 0
    assert torch.equal(weight(kind, dtype).wide(), expected.to(dtype))


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_0", "Q6_K"])
def test_a_large_weight_is_widened_in_pieces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftlab.models.quantization.weight.PIECE", 1024)
    assert torch.equal(weight(kind).wide(), wanted(rows_of(kind), kind))


@pytest.mark.parametrize("kind", mostly_slow(PACKED, "Q8_0", "Q4_K"))
def test_blocks_are_compiled_into_the_graph(kind: str) -> None:
    torch._dynamo.reset()
    x = torch.randn(3, IN, requires_grad=True)
    own = weight(kind)
    compiled = torch.compile(
        torch.nn.functional.linear, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x, own), x @ own.wide().t())


def test_an_embedding_looks_up_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own, ids = weight("Q5_0"), torch.tensor([[3, 0], [11, 3]])
    whole = own.wide()
    widened: list[int] = []
    widen = Blocks.widen

    def note(self, parts, shape, dtype):  # type: ignore[no-untyped-def]
        widened.append(shape[0])
        return widen(self, parts, shape, dtype)

    monkeypatch.setattr(Blocks, "widen", note)
    assert torch.equal(torch.nn.functional.embedding(ids, own), whole[ids])
    assert widened == [4]


def test_a_large_head_multiplies_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    own = weight("Q8_0")
    whole = own.wide()
    monkeypatch.setitem(
        __import__("graftlab.models.quantization.weight", fromlist=["SLICE"]).SLICE, "cpu", IN * 2
    )
    torch.manual_seed(0)
    x = torch.randn(2, 5, IN, requires_grad=True)
    product = torch.nn.functional.linear(x, own)
    torch.testing.assert_close(product, x @ whole.t(), rtol=1e-5, atol=1e-4)
    grad = torch.randn_like(product)
    (found,) = torch.autograd.grad(product, x, grad)
    torch.testing.assert_close(found, grad @ whole, rtol=1e-5, atol=1e-4)
