"""Memory: terms sum to the total, and grow with what they are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.planning.changes import Knobs, changes, together
from graftlab.planning.memory import (
    CHUNK_ELEMENTS,
    GROWN,
    KERNEL,
    LOSS,
    Settings,
    estimate_memory,
    frayed,
    kept_per_token,
    logit_bytes,
)
from graftlab.process import KEPT_KERNELS

PRECISIONS = ("fp32", "bf16-mixed", "bf16", "fp16-mixed")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_terms_sum_to_the_total(precision, checkpointing, make_shape, make_load) -> None:
    settings = Settings(precision=precision, checkpointing=checkpointing)
    found = estimate_memory(make_shape(), make_load(), settings)
    kept = found.base + found.adapter + found.gradients + found.optimizer + found.activations
    assert found.total == kept + found.logits + found.working + found.overhead
    assert all(size > 0 for name, size in found.terms().items() if name != "working")
    assert found.working >= 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_grows_with_batch_rank_and_length(precision, make_shape, make_load) -> None:
    settings = Settings(precision=precision)

    def total(*, rank: int = 8, **load) -> float:
        return estimate_memory(
            make_shape(rank=rank), make_load(max_steps=100, **load), settings
        ).total

    by_batch = [total(batch_size=size) for size in (1, 2, 4, 8)]
    by_rank = [total(rank=rank) for rank in (4, 8, 16, 64)]
    by_length = [total(max_length=length) for length in (512, 1024, 2048, 4096)]
    for sizes in (by_batch, by_rank, by_length):
        assert sizes == sorted(set(sizes))


def test_accumulation_is_free(make_shape, make_load) -> None:
    settings = Settings(precision="bf16-mixed")
    one, many = (estimate_memory(make_shape(), make_load(accumulate=n), settings) for n in (1, 8))
    assert one == many


def test_checkpointing_and_16_bits_save(make_shape, make_load) -> None:
    shape, load = make_shape(), make_load()
    plain = Settings(precision="fp32")
    needed = estimate_memory(shape, load, plain)
    saving = estimate_memory(shape, load, replace(plain, checkpointing=True))
    assert saving.activations < needed.activations / 2
    assert {k: v for k, v in saving.terms().items() if k not in ("activations", "overhead")} == {
        k: v for k, v in needed.terms().items() if k not in ("activations", "overhead")
    }
    plain = replace(plain, kind="cuda")  # a processor gathers kernels in 16 bits
    needed = estimate_memory(shape, load, plain)
    half = estimate_memory(shape, load, replace(plain, precision="bf16-mixed"))
    assert half.base == needed.base / 2
    assert half.adapter == needed.adapter
    assert half.total < needed.total


def test_options_that_keep_more(make_shape, make_load) -> None:
    shape = make_shape()
    plain = kept_per_token(shape, Settings(precision="bf16-mixed"))
    dora = kept_per_token(make_shape(dora=True), Settings(precision="bf16-mixed", dora=True))
    fp32 = Settings(precision="fp32")
    assert dora > plain
    assert kept_per_token(shape, replace(fp32, dropout=True)) == kept_per_token(shape, fp32)
    assert kept_per_token(shape, fp32) < kept_per_token(shape, replace(fp32, compiled=True))


def test_a_processor_s_heap_frays_and_kernels_gather(make_shape, make_load) -> None:
    def overhead(steps: int, **options) -> float:
        settings = Settings(**{"precision": "bf16-mixed", **options})
        return estimate_memory(make_shape(), make_load(max_steps=steps), settings).overhead

    run = [overhead(steps) for steps in (1, 10, 100, GROWN, 10 * GROWN)]
    assert run[0] < run[1] < run[2] < run[3] == run[4]
    assert overhead(100, kind="cuda") == overhead(1, kind="cuda") < run[2]
    # In 16 bits products of every shape are compiled; fp32 needs none, and both fray alike.
    shape, load = make_shape(), make_load(max_steps=1)
    fp32, bf16 = (
        estimate_memory(shape, load, Settings(precision=name)) for name in ("fp32", "bf16")
    )
    moving = [m.activations + m.logits + m.working for m in (fp32, bf16)]
    kernels = bf16.overhead - fp32.overhead + LOSS["cpu"] * (moving[0] - moving[1])
    assert kernels == pytest.approx(KERNEL * KEPT_KERNELS)
    upcast = estimate_memory(shape, load, Settings(precision="bf16", upcast=True))
    assert bf16.total - upcast.total == pytest.approx(KERNEL * KEPT_KERNELS)
    fraying = [overhead(100, precision=p) - overhead(1, precision=p) for p in ("fp32", "bf16")]
    assert fraying[0] == pytest.approx(fraying[1])


def test_wider_and_longer_rows_fray_more(make_shape, make_load) -> None:
    shape, load = make_shape(), make_load(max_steps=50)
    assert frayed(replace(shape, hidden=4 * shape.hidden), load) == 2 * frayed(shape, load) > 0
    assert frayed(shape, make_load(max_steps=50, batch_size=2)) > 1.9 * frayed(shape, load)
    alone = replace(load, passes=1)
    assert frayed(shape, alone) == 0


def test_logits_never_exceed_one_chunk() -> None:
    settings = Settings(precision="bf16-mixed")
    few, chunk = logit_bytes(10, 32_000, settings), logit_bytes(10**6, 32_000, settings)
    assert few < chunk == logit_bytes(10**7, 32_000, settings) == CHUNK_ELEMENTS * 14


def test_sharding_divides_the_base_alone(make_shape, make_load) -> None:
    settings = Settings(precision="bf16-mixed")
    whole = estimate_memory(make_shape(), make_load(), settings)
    part = estimate_memory(make_shape(), make_load(), replace(settings, sharded=4))
    assert part.base == whole.base / 4
    assert part.adapter == whole.adapter


@pytest.fixture
def knobs() -> Knobs:
    return Knobs(8, 1, 64, 4096, Settings(precision="fp32"))


def test_changes_come_cheapest_first_and_fit(knobs, make_shape, make_load) -> None:
    def total(turned: Knobs) -> float:
        load = make_load(
            batch_size=turned.batch_size,
            accumulate=turned.accumulate,
            max_length=turned.max_length,
            max_steps=100,
        )
        return estimate_memory(make_shape(rank=turned.rank), load, turned.settings).total

    now = total(knobs)
    found = changes(knobs, total, now * 0.9)
    assert [change.words.split("=")[0] for change in found] == [
        "batch_size",
        "model.gradient_checkpointing",
        "precision",
        "quantization",
        "lora.rank",
        "packing.max_length",
    ]
    assert found[0].words == "batch_size=4 accumulate=2"  # the mildest that fits
    assert all(change.total < now for change in found)
    assert all(change.fits == (change.total <= now * 0.9) for change in found)
    assert not any(change.fits for change in changes(knobs, total, 1.0))
    assert found[3].words == "quantization=nf4 quantization.double=true"
    (all_at_once,) = together(knobs, total, now * 0.9)
    assert all_at_once.total < min(change.total for change in found[:3])
    assert "quantization" not in all_at_once.words
    _, with_codes = together(knobs, total, 1.0)
    assert with_codes.words == f"{all_at_once.words} {found[3].words}"
    assert with_codes.total < all_at_once.total


def test_nothing_to_turn(make_shape, make_load) -> None:
    least = Knobs(1, 1, 8, 512, Settings(precision="bf16", checkpointing=True))
    words = [change.words for change in changes(least, lambda _: 2.0, 1.0)]
    assert words == ["quantization=nf4 quantization.double=true"]
    for kept in ({"quantises": False}, {"quantization": NF4(double=True)}):
        done = replace(least, settings=replace(least.settings, **kept))
        assert changes(done, lambda _: 2.0, 1.0) == []
    assert changes(replace(least, rank=0), lambda _: 2.0, 1.0) == []  # all weights are trained
    assert together(least, lambda _: 2.0, 1.0) == []


def test_a_base_of_codes_is_offered_smaller_ones_alone() -> None:
    """With the head as it is stored; the mildest that fits is named."""

    def offered(stored, most: float) -> list[str]:
        settings = Settings(precision="bf16", checkpointing=True, quantization=stored)
        knobs = Knobs(1, 1, 8, 512, settings)

        def total(turned: Knobs) -> float:
            return turned.settings.quantization.num_bytes(1024, 1024) / 1024**2

        return [change.words for change in changes(knobs, total, most) if change.fits]

    assert offered(Int8(head=True), 0.6) == ["quantization=nf4 quantization.head=true"]
    assert offered(Int8(), 0.53) == ["quantization=nf4 quantization.double=true"]
    assert offered(NF4(), 0.6) == ["quantization=nf4 quantization.double=true"]
