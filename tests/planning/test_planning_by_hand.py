"""Figures of a plan beside ones that were worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graftlab.machine import Machine, Rates
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.planning.memory import Settings, estimate_memory, kept_per_token, logit_bytes
from graftlab.planning.timing import WIDEN_SECONDS, ComputeWork, bill, rate, work
from graftlab.planning.workload import guess_documents
from graftlab.types import Conversation, Message
from plan_figures import GIB, GPU, MIB, SHAPE, a_load


def test_a_workload_by_hand() -> None:
    load = a_load(valid_tokens=50)
    assert (load.budget.rows, load.budget.steps_per_epoch) == (2, 2)
    assert (load.steps, load.epochs, load.passes) == (6, 3.0, 6)
    assert (load.batch_tokens, load.batch_labels) == (1000, 250)  # the fuller row
    assert load.mean_batch_tokens == 750
    assert (load.tokens_per_step, load.labelled, load.mean_length) == (750, 0.25, 375)
    assert load.documents_per_pass == 2
    assert load.validations == 4  # the base's, and one an epoch
    both = a_load(batch_size=2)
    assert (both.steps, both.passes, both.batch_tokens, both.batch_labels) == (3, 3, 1500, 375)
    assert both.tokens_per_step == 1500
    summed = a_load(accumulate=2)
    assert (summed.steps, summed.passes, summed.batch_tokens) == (3, 6, 1000)
    assert summed.tokens_per_step == 1500
    shared = a_load(processes=2)
    assert (shared.steps, shared.passes, shared.tokens_per_step) == (3, 3, 1500)
    assert shared.processes == 2
    part = a_load(max_steps=5)
    assert (part.steps, part.epochs, part.passes) == (5, 2.5, 5)
    longer = a_load(max_steps=1)
    assert (longer.epochs, longer.passes) == (0.5, 1)


@pytest.mark.parametrize(
    ("schedule", "validations"),
    [
        ({"validate_epochs": 1}, 4),  # the base, steps 2, 4, 6
        ({"validate_epochs": 2}, 3),  # the base, steps 4, 6
        ({"validate_epochs": None}, 2),  # the base and the last
        ({"validate_epochs": None, "validate_steps": 4}, 3),
        ({"validate_epochs": 1, "validate_steps": 3}, 5),  # 2, 3, 4, 6
        ({"validate_epochs": 1, "max_steps": 5}, 4),  # 2, 4, 5
    ],
)
def test_validations_by_hand(schedule, validations) -> None:
    assert a_load(valid_tokens=9, **schedule).validations == validations


def test_letters_are_counted_where_no_tokenizer_is() -> None:
    """Four letters a token and five tokens around a turn; an answer's end is trained with it."""
    turns = (Message("user", "a" * 40), Message("assistant", "b" * 80), Message("user", "c" * 4))
    found = guess_documents([Conversation(turns), Conversation((Message("assistant", ""),))])
    assert found.lengths.tolist() == [10 + 5 + 20 + 5 + 1 + 5, 5]
    assert found.labels.tolist() == [21, 1]
    assert not found.exact
    assert "4 a token" in found.source


# Per token and layer: the inputs of two norms, 256 wide; 384 = 4 x 64 + 2 x 64 widths of q and k,
# twice; 4 heads; gate and up, 704 wide. In all 28 x 16 of LoRA, and what the first norm gives.
KEPT = {
    "fp32": 4 * (8 * 256 + 8 * 384 + 4 * 4 + 8 * 704) + 4 * 448 + 4 * 256,
    "bf16-mixed": 4 * (4 * 256 + 4 * 384 + 4 * 4 + 4 * 704) + 2 * 448 + 2 * 256,
    "bf16": 4 * (4 * 256 + 4 * 384 + 4 * 4 + 4 * 704) + 2 * 448 + 2 * 256,
}


@pytest.mark.parametrize("precision", KEPT)
def test_terms_by_hand(precision) -> None:
    """A quarter of 1,000 tokens is labelled: 250 x 8,000 logits; the backward pass of an MLP."""
    settings = Settings(precision=precision, kind="cuda", optimizer_bytes=10.0)
    wide, weight = (4, 4) if precision == "fp32" else (2, 2)
    trained = 2 if precision == "bf16" else 4
    logits = 250 * 8000 * (12 + wide)
    working = 1000 * (4 * wide * 704 + 4 * wide * 256)
    activations = 1000 * KEPT[precision]
    assert working < logits  # they do not come at the same time
    found = estimate_memory(SHAPE, a_load(), settings)
    assert found.terms() == pytest.approx(
        {
            "base": 10_000_000 * weight,
            "adapter": 500_000 * trained,
            "gradients": 500_000 * trained,
            "optimizer": 5_000_000,
            "activations": activations,
            "logits": logits,
            "working": 0,
            "overhead": 0.6 * GIB + 0.05 * (activations + logits),
        }
    )
    narrow = replace(SHAPE, vocab=800)
    found = estimate_memory(narrow, a_load(), settings)
    assert found.logits == logits / 10
    assert found.working == working - logits / 10 > 0


def test_a_student_by_hand() -> None:
    """The base once as it was lent, in the dtype of what is trained, and once trained."""
    student = replace(SHAPE, whole=True, trainable=10_000_000, teacher=70_000_000)
    found = estimate_memory(student, a_load(), Settings(precision="bf16-mixed", sharded=2))
    assert (found.base, found.adapter, found.gradients) == (20e6, 40e6, 40e6)
    assert (found.optimizer, found.teacher) == (80e6, 140e6)


def test_a_base_of_codes_by_hand() -> None:
    """Two matrices of 6 million weights become codes; 4 million weights stay in 16 bits."""
    shape = replace(SHAPE, matrices=((2000, 1000), (1000, 4000)), head=(1000, 1000))
    plain = estimate_memory(shape, a_load(), Settings(precision="bf16-mixed"))
    blocks = 6_000_000 / 64
    for codes, stored in (
        (Int8(), 6_000_000 + 4 * 3000),
        (NF4(), 3_000_000 + 4 * blocks),
        (NF4(double=True), 3_000_000 + blocks + 4 * blocks / 256),
    ):
        settings = Settings(precision="bf16-mixed", quantization=codes)
        found = estimate_memory(shape, a_load(), settings)
        assert found.base == pytest.approx(8_000_000 + stored)
        assert found.working == plain.working + 8_000_000, "the larger one, widened"
        assert found.teacher == plain.teacher
    headed = Settings(precision="bf16-mixed", quantization=Int8(head=True))
    assert estimate_memory(shape, a_load(), headed).base == 6_000_000 + 7_000_000 + 4 * 4000


def test_widening_takes_its_time() -> None:
    shape = replace(SHAPE, matrices=((2000, 1000),), head=None)
    plain = work(shape, a_load(), checkpointing=False)
    codes = work(shape, a_load(), checkpointing=False, codes=NF4())
    again = work(shape, a_load(), checkpointing=True, codes=NF4())
    assert (plain.widened, codes.widened, again.widened) == (0, 4_000_000, 6_000_000)
    machine = Machine(kind="cpu", peak=Rates(fp32=1.0))
    slow, fast = (
        bill(each, a_load(), machine, flops=1e11, dtype="fp32") for each in (codes, plain)
    )
    passes = a_load().tokens_per_step / a_load().mean_batch_tokens
    more = slow.seconds_per_step - fast.seconds_per_step
    assert more == pytest.approx(passes * 4_000_000 * WIDEN_SECONDS["cpu"])


def test_a_processor_s_overhead_by_hand() -> None:
    """575 MiB before anything, a fifth of what comes and goes, 128 kernels of 0.58 MiB in 16 bits,
    and what the heap has lost after six passes of 750 tokens: 3,590 x root(5 x 256) a token.
    """
    load = a_load()
    for precision, kernels in (("fp32", 0), ("bf16", 128 * 0.58 * MIB)):
        for compiled, compiler in ((False, 0), (True, 150 * MIB)):
            found = estimate_memory(SHAPE, load, Settings(precision=precision, compiled=compiled))
            moving = found.activations + found.logits + found.working
            lost = 3590 * 750 * (5 * 256) ** 0.5
            known = 575 * MIB + 0.21 * moving + kernels + compiler + lost
            assert found.overhead == pytest.approx(known)


def test_what_options_keep_by_hand() -> None:
    plain = Settings(precision="bf16-mixed")
    assert kept_per_token(SHAPE, plain) == KEPT["bf16-mixed"]
    dora = kept_per_token(SHAPE, replace(plain, dora=True))
    assert dora - KEPT["bf16-mixed"] == 2 * 2 * 8704 + 2 * 8960 - 2 * 256
    normed = kept_per_token(replace(SHAPE, qk_norm=True), plain)
    assert normed - KEPT["bf16-mixed"] == 4 * 2 * 384
    again = kept_per_token(SHAPE, replace(plain, checkpointing=True))
    assert again == 4 * 2 * 256 + KEPT["bf16-mixed"] / 4
    # As PyTorch keeps it by itself: fp32 inputs of norms, act(gate) and h, and what lora_A reads.
    usual = kept_per_token(SHAPE, replace(plain, keeps_little=False))
    assert usual == 4 * (8 * 256 + 4 * 384 + 4 * 4 + 6 * 704) + 2 * 4864 + 2 * 448
    # Compiled: each layer's input twice, q, k, v and output, gate and up; lora_A's input once.
    compiled = kept_per_token(SHAPE, replace(plain, compiled=True))
    assert compiled == 4 * (4 * 256 + 4 * 384 + 16 + 4 * 704) + 2 * (4864 + 448)
    for precision, wide in (("fp32", 4), ("bf16-mixed", 2), ("bf16", 2)):
        dropping = Settings(precision=precision, dropout=True)
        assert kept_per_token(SHAPE, dropping) == KEPT[precision]  # its masks are drawn again
        both, dora = replace(dropping, dora=True), replace(dropping, dora=True, dropout=False)
        more = kept_per_token(SHAPE, both) - kept_per_token(SHAPE, dora)
        assert more == (0 if precision == "bf16-mixed" else wide * (8960 - 4864))
    one_row = Settings(precision="fp32")
    assert logit_bytes(9, 20_000_000, one_row) == 16 * 20_000_000  # never less than a row


def test_work_by_hand() -> None:
    """A quarter labelled: the head costs 256 x 8,000 / 4; attention over half of 375 tokens."""
    load, head, attention = a_load(), 512_000, 2 * 2 * 256 * 187.5 * 4
    found = work(SHAPE, load, checkpointing=False)
    assert found.train_token == 4 * (3_000_000 + head) + 6 * 500_000 + 3 * attention
    assert found.valid_token == 2 * 3_500_000 + attention + 2 * head
    assert (found.micro_batch, found.layers, found.shapes) == (0, 4, 28 + 8 * 2)
    again = work(SHAPE, load, checkpointing=True)
    assert again.train_token - found.train_token == 2 * 3_500_000 + attention
    assert again.valid_token == found.valid_token
    asked = work(replace(SHAPE, teacher=7, dora_work=11), load, checkpointing=False)
    assert asked.train_token - found.train_token == asked.valid_token - found.valid_token == 14
    assert asked.micro_batch == 22
    assert work(replace(SHAPE, dora_work=11), load, checkpointing=True).micro_batch == 44
    student = work(replace(SHAPE, whole=True), load, checkpointing=True)
    assert student.train_token == 8 * 3_000_000 + 6 * head + 4 * attention
    assert student.valid_token == 2 * 3_000_000 + attention + 2 * head


def test_a_bill_by_hand() -> None:
    """Six steps of 750 tokens and four validations of 50, at 1e9 operations a second."""
    load = a_load(valid_tokens=50)
    needed = ComputeWork(train_token=4e6, valid_token=2e6, micro_batch=1e9, layers=4)
    found = bill(needed, load, GPU, flops=1e9)
    assert found.seconds_per_step == pytest.approx(3 + 1)
    assert found.tokens_per_second == pytest.approx(187.5)
    seconds = 6 * 4 + 4 * 50 * 2e-3
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.kwh == pytest.approx(seconds / 3600 * 0.5)
    assert found.cost == pytest.approx(seconds / 3600 * 3)
    resumed = bill(needed, load, GPU, flops=1e9, done_steps=4)
    assert resumed.hours == pytest.approx((2 * 4 + 0.4) / 3600)
    assert bill(needed, load, GPU, flops=1e9, done_steps=9).hours == pytest.approx(0.4 / 3600)
    assert bill(needed, load, GPU, flops=1e9, max_minutes=0.1).hours == pytest.approx(0.1 / 60)
    assert bill(needed, load, GPU, flops=1e9, max_minutes=9.0).hours == found.hours
    # A probe that found half the speed: training and validation take twice as long.
    probed = bill(needed, load, GPU, flops=1e9, tokens_per_second=93.75)
    assert (probed.seconds_per_step, probed.tokens_per_second) == (8, 93.75)
    assert probed.hours == pytest.approx(2 * found.hours)


def test_two_processes_by_hand() -> None:
    """Each takes one of the two rows: three steps of two micro-batches at once, two machines."""
    load = a_load(valid_tokens=50, processes=2)
    needed = ComputeWork(train_token=4e6, valid_token=2e6)
    found = bill(needed, load, GPU, flops=1e9)
    assert found.seconds_per_step == pytest.approx(3)
    assert found.tokens_per_second == pytest.approx(500)
    seconds = 3 * 3 + 4 * 50 * 2e-3 / 2
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.kwh == pytest.approx(seconds / 3600 * 0.5 * 2)
    assert found.cost == pytest.approx(seconds / 3600 * 3 * 2)


@pytest.mark.parametrize(
    ("kind", "dtype", "seconds"),
    [
        ("cuda", "bf16", 8 * 2.5e-3),  # it computes meanwhile
        ("mps", "fp16", 8 * 6e-3),
        ("cpu", "fp32", 0.003 + 8 * 3e-3),
        ("cpu", "bf16", 0.003 + 8 * 3e-3 + 2e-3 * 30),  # and compiles a kernel a shape
    ],
)
def test_small_steps_take_what_starting_them_takes(kind, dtype, seconds) -> None:
    needed = ComputeWork(train_token=4e6, valid_token=2e6, layers=8, shapes=30)
    machine = replace(GPU, kind=kind)
    found = bill(needed, a_load(), machine, flops=1e12, dtype=dtype)
    assert found.seconds_per_step == pytest.approx(seconds)


def test_rates_by_hand() -> None:
    assert rate(GPU, "bf16") == 100e12
    assert rate(GPU, "fp32") is None
    peaked = Machine(peak=Rates(fp32=2, bf16=10, fp16=20))
    assert rate(peaked, "fp32") == pytest.approx(0.45 * 2e12)
    assert rate(peaked, "bf16") == pytest.approx(0.16 * 10e12)
    assert rate(peaked, "fp16") == pytest.approx(0.16 * 20e12)
    assert rate(peaked, "bf16", 1e12) == pytest.approx(0.16e12)  # what was measured goes first
