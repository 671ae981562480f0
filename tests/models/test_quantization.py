"""Codes are those of bitsandbytes, and values are codes times scales, in one piece or in many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graftlab.models.fingerprint import fingerprint
from graftlab.models.quantization import weight as pieces
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.int8_rows import Int8Rows
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.quantization.nf4_blocks import VALUES, NF4Blocks
from graftlab.models.quantization.weight import QuantizedWeight
from miniatures import miniature

CHOICES = [NF4(), NF4(double=True), Int8()]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
each_choice = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.title)

# What bitsandbytes 0.50.2 makes of `matrix()` on a CPU.
CODES = """
0da621ec841fda621ec841fda620ec841fda520ec731fd9520eb731fd9520eb731fd9520eb731fd9520eb631ec
9420eb631ec8410ea631ec841fda621ec841fd7777777777777777777777777777777777777777777777777777
777777777777fd9520eb631ec9420eb631ec8410ea631ec841fda621ec841fda620ec841fda520ec731fda520e
c731fd9520eb731fd9520eb731fd9520eb731fd9410eb631fd9410eb631ec8410ea631ec841fda621ec841fda6
20ec841fda520ec741fda520eb731fd9520eb731fd9520eb731fd9520eb731fd9420eb631fc8410eb631ec8410
da631ec841fda621ec841fda620ec841fda520ec741fd9520eb731fd9520eb731fd9520eb731fd9520eb731fc9
420eb631ec8410ea631ec841fda621ec841fda620ec841fda620ec841fda520ec731fda520eb731fd9520eb731
fd9520eb731fd9520eb631ec9420eb631ec8410ea631ec841fda621ec841fda620ec841fda520ec731fda520ec
731fd9520eb731fd9520eb731fd9520eb731fd9410eb631f
"""
SCALES = [
    *(0.12353515625, 0.123291015625, 0.0, 0.24560546875, 0.355224609375, 0.368408203125),
    *(0.484375, 0.4931640625, 0.61767578125, 0.595703125, 0.73828125, 0.708984375),
]
SCALE_CODES = [21, 21, 0, 43, 62, 67, 197, 199, 221, 217, 242, 237]
MEAN = 0.4045206606388092
ROWS = [0.12353515625, 0.24560546875, 0.368408203125, 0.4931640625, 0.61767578125, 0.73828125]
ROW = [-64, -111, 98, 51, 5, -42, -89, 120, 73, 27, -20, -67, -113, 96, 49, 2, -44, -91, 118, 71]


def matrix() -> Tensor:
    """(6, 128), the same to the bit everywhere, with a block of zeros."""
    values = ((torch.arange(6 * 128) * 7919 % 1013 - 506) / 512).view(6, 128)
    weight = values * torch.arange(1, 7)[:, None] / 8
    weight[1, :64] = 0
    return weight


def drawn(out: int, into: int) -> Tensor:
    return torch.randn(out, into, generator=torch.Generator().manual_seed(1))


def test_codes_are_those_that_bitsandbytes_makes() -> None:
    codes, scales = NF4().quantise(matrix(), torch.float32).parts
    assert bytes(codes.tolist()) == bytes.fromhex(CODES)
    assert scales.tolist() == SCALES
    same, scale_codes, largest, mean = NF4(double=True).quantise(matrix(), torch.float32).parts
    assert torch.equal(same, codes)
    assert scale_codes.tolist() == SCALE_CODES
    assert (largest.item(), mean.item()) == (MEAN, MEAN)  # the largest is as far off as zero
    rows, row_scales = Int8().quantise(matrix(), torch.float32).parts
    assert rows[2, :20].tolist() == ROW
    assert torch.equal(row_scales, torch.tensor(ROWS) / 127)


def test_bitsandbytes_agrees_on_any_weight() -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    for weight in (drawn(96, 64), drawn(3, 320) * 1e-3, drawn(64, 64).bfloat16().float()):
        codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        ours = NF4().quantise(weight, torch.float32)
        assert torch.equal(ours.parts[0], codes.view(-1))
        for dtype in DTYPES:
            state.dtype = dtype
            assert torch.equal(ours.wide(dtype), functional.dequantize_4bit(codes, state))
        rows, _, _ = functional.int8_vectorwise_quant(weight)
        assert torch.equal(Int8().quantise(weight, torch.float32).parts[0], rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_are_codes_times_scales_rounded_once(dtype: torch.dtype) -> None:
    weight = drawn(10, 96)
    codes, scales = NF4().quantise(weight, dtype).parts
    nibbles = torch.stack([codes >> 4, codes & 15], 1).view(-1).long()
    values = torch.tensor(VALUES)[nibbles].view(-1, 64) * scales[:, None]
    assert torch.equal(NF4().quantise(weight, dtype).wide(), values.view(10, 96).to(dtype))
    codes, scales = Int8().quantise(weight, dtype).parts
    values = codes.float() * scales[:, None]
    assert torch.equal(Int8().quantise(weight, dtype).wide(), values.to(dtype))


def test_scales_in_eight_bits_are_within_their_step() -> None:
    weight = drawn(256, 160)
    single, double = (NF4(double=on).quantise(weight, torch.float32) for on in (False, True))
    scales, off = single.parts[1], (single.wide() - double.wide()).view(-1, 64).abs().amax(1)
    assert 0 < off.max() < 0.02 * scales.max()
    assert len(double.parts[2]) == 3, "640 scales have three of their own"


@each_choice
def test_the_values_are_near_the_weight(choice: Codes) -> None:
    weight = drawn(64, 128)
    off = (choice.quantise(weight, torch.float32).wide() - weight).norm() / weight.norm()
    assert off < (0.01 if isinstance(choice, Int8) else 0.1)
    assert off > 0.001


@each_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pieces_change_nothing(
    choice: Codes, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = drawn(37, 128)
    whole = choice.quantise(weight, dtype)
    values = whole.wide()
    monkeypatch.setattr(pieces, "PIECE", 640 // torch.get_num_threads())
    assert len(pieces.in_pieces(weight, 128)) > 5
    cut = choice.quantise(weight, dtype)
    assert all(torch.equal(a, b) for a, b in zip(whole.parts, cut.parts, strict=True))
    assert torch.equal(cut.wide(), values)


@each_choice
def test_sizes_that_no_block_divides(choice: Codes) -> None:
    weight = drawn(5, 7)
    wide = choice.quantise(weight, torch.float32).wide()
    assert wide.shape == weight.shape
    assert (wide - weight).norm() < 0.15 * weight.norm()


@each_choice
def test_zeros_stay_zeros_and_what_is_not_finite_shows(choice: Codes) -> None:
    assert torch.equal(
        choice.quantise(torch.zeros(4, 64), torch.float32).wide(), torch.zeros(4, 64)
    )
    for bad in (float("nan"), float("inf")):
        weight = drawn(4, 64)
        weight[2, 5] = bad
        rows = choice.quantise(weight, torch.float32).wide().isfinite().all(1)
        assert not rows[2]


@each_choice
def test_a_graph_computes_the_same(choice: Codes) -> None:
    torch._dynamo.reset()
    weight = choice.quantise(drawn(24, 128), torch.float32)
    layer = nn.Linear(128, 24, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    x = drawn(7, 128)
    compiled: Callable[[Tensor], Tensor] = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@each_choice
def test_the_bytes_are_counted_as_they_are(choice: Codes) -> None:
    weight = choice.quantise(drawn(512, 256), torch.bfloat16)
    held = sum(part.nbytes for part in weight.parts)
    assert held == pytest.approx(choice.num_bytes(512, 256), abs=4)


def test_a_fingerprint_is_of_files_and_storage(tmp_path: Path) -> None:
    folder, other = (miniature("llama", tmp_path / str(seed), seed=seed) for seed in (0, 1))
    others = [NF4(), NF4(double=True), NF4(head=True), Int8(), Int8(head=True)]
    marks = {fingerprint(folder, choice) for choice in (None, Quantization(), *others)}
    assert len(marks) == 6
    assert fingerprint(folder, NF4(cache=True)) in marks
    assert not marks & {fingerprint(other, choice) for choice in (None, *others)}


def test_schemes_are_compared_by_value() -> None:
    assert NF4Blocks() == NF4Blocks(double=False) != NF4Blocks(double=True)
    assert Int8Rows() == Int8Rows()
    assert isinstance(NF4().quantise(drawn(1, 64), torch.float32), QuantizedWeight)
