"""A whole plan of figures worked out by hand: what it decides, and what is printed of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from graftlab.machine import Machine, Rates
from graftlab.planning.advice import Advice
from graftlab.planning.changes import Knobs
from graftlab.planning.memory import Memory, Settings, estimate_memory
from graftlab.planning.plan import Plan, Probe, Question, answer, bill_of
from graftlab.planning.show import bar, gib, show, show_total
from graftlab.training.budget import Limits
from plan_figures import GIB, GPU, MIB, SHAPE, a_load


def a_question(**fields: Any) -> Question:
    load = a_load(valid_tokens=50)
    given = {
        "knobs": Knobs(1, 1, 16, 1000, Settings(precision="bf16-mixed")),
        "shape_at": lambda rank: replace(SHAPE, rank=rank),
        "load_at": lambda knobs: load,
        "machine": GPU,
        "machines": {"card": GPU, "other": replace(GPU, title="slower", memory=1, usable=None)},
        "limits": Limits(),
        "dtype": "bf16",
        **fields,
    }
    return Question(**given)


def a_plan(**fields: Any) -> Plan:
    return answer(a_question(**fields), title="lr 1", advice=[], notes=[])


def test_a_plan_is_of_the_device_s_kind() -> None:
    plan = a_plan()
    settings = Settings(precision="bf16-mixed", kind="cuda")
    assert plan.memory == estimate_memory(SHAPE, a_load(), settings)
    assert plan.toggled == estimate_memory(SHAPE, a_load(), replace(settings, checkpointing=True))
    assert (plan.fits, plan.changes, plan.broken) == (True, [], [])
    assert [row.name for row in plan.rows] == ["card", "other"]
    assert [row.fits for row in plan.rows] == [plan.memory.total <= n * GIB for n in (8, 1)]
    assert plan.rows[0].needed == plan.memory.total
    assert (plan.shape.parameters, plan.shape.trainable) == (10_000_000, 500_000)
    assert (plan.load.steps, plan.load.tokens_per_step) == (6, 750)
    assert plan.memory.gradients == 2_000_000
    assert plan.bill is not None
    assert a_plan(dtype="fp32").bill is None  # nothing is known of its rate


def test_a_device_is_asked_only_what_is_its_own() -> None:
    """A measured peak and a probe are a processor's of this machine."""
    processor = Machine(achieved=Rates(), watts=65, price=0.02)
    probe = Probe(tokens_per_second=75.0, peak_bytes=1.0, steps=8, compiled=False)
    question = a_question(machine=processor, measured_peak=1e12, probe=probe)
    probed = bill_of(question, processor, probed=True)
    assert probed is not None
    assert probed.seconds_per_step == 10
    unprobed = bill_of(question, processor)
    assert unprobed is not None
    assert unprobed.seconds_per_step < 1
    card = bill_of(question, GPU, probed=True)
    assert card is not None
    assert card.tokens_per_second != 75
    assert bill_of(a_question(measured_peak=1e12, dtype="fp32"), GPU) is None
    # As the plan of that very machine does, and for no other.
    plan = a_plan(
        machine=processor,
        machines={"cpu": processor},
        measured_peak=1e12,
        probe=probe,
        done_steps=5,
    )
    assert plan.bill == plan.rows[0].bill
    assert plan.bill is not None
    assert plan.bill.seconds_per_step == 10
    assert plan.bill.hours < 2 * 10 / 3600 + 1e-3
    limited = bill_of(replace(question, max_minutes=0.01), processor, probed=True)
    assert limited is not None
    assert limited.hours == pytest.approx(0.01 / 60)


def test_a_processor_without_units_is_taken_to_multiply_in_fp32() -> None:
    """Alone: a GPU beside it has them."""
    processor = Machine(achieved=Rates(fp32=1.0, bf16=0.1))
    knobs = Knobs(1, 1, 16, 1000, Settings(precision="bf16-mixed", upcast=True))
    upcast = a_question(machine=processor, knobs=knobs)
    assert bill_of(upcast, processor) == bill_of(a_question(dtype="fp32"), processor)
    assert bill_of(upcast, GPU) == bill_of(a_question(), GPU)
    assert bill_of(a_question(), processor) != bill_of(upcast, processor)


def test_what_does_not_fit_is_told_with_changes() -> None:
    question = a_question()
    total = a_plan().memory.total
    small = replace(GPU, memory=None, usable=(total - 1) / GIB)
    plan = a_plan(machine=small, limits=Limits(max_hours=1e-9))
    assert not plan.fits
    assert len(plan.broken) == 1
    assert plan.changes
    assert [change.fits for change in plan.changes if "checkpointing" in change.words] == [True]
    exact = a_plan(machine=replace(GPU, memory=None, usable=total / GIB))
    assert exact.fits
    nowhere = a_plan(machine=replace(GPU, memory=None, usable=1e-6))
    assert not any(change.fits for change in nowhere.changes)
    assert nowhere.changes[-1].price == "all of these at once" or len(nowhere.changes) > 1
    assert question.memory(question.knobs, kind="cpu").overhead > 575 * MIB


def test_sizes_times_and_counts_as_they_are_printed() -> None:
    assert [gib(n) for n in (GIB, 1.5 * GIB, 3000 * GIB, GIB - MIB, 5 * MIB, 0)] == [
        *("1.0 GiB", "1.5 GiB", "3,000.0 GiB"),
        *("1,023 MiB", "5 MiB", "0 MiB"),
    ]


def printed(show_it: Any) -> list[str]:
    with (console := Console(width=200, color_system=None)).capture() as seen:
        show_it(console)
    return [" ".join(line.split()) for line in seen.get().splitlines()]


def test_a_plan_is_printed_with_its_numbers() -> None:
    memory = Memory(
        base=2 * GIB,
        adapter=100 * MIB,
        gradients=101 * MIB,
        optimizer=202 * MIB,
        activations=1 * GIB,
        logits=300 * MIB,
        working=50 * MIB,
        overhead=271 * MIB,
    )
    found = a_plan()
    assert found.bill is not None
    paid = replace(found.bill, hours=2.5, kwh=1.25, cost=7.5)
    cheap = replace(found.bill, hours=0.01, kwh=0.004, cost=0.03)
    rows = [
        replace(found.rows[0], needed=memory.total, bill=paid),
        replace(found.rows[1], needed=memory.total, fits=True, bill=cheap),
        replace(found.rows[1], name="third", needed=5 * GIB, fits=False),
        replace(found.rows[1], name="fourth", needed=6 * GIB, fits=True, bill=None),
    ]
    probe = Probe(tokens_per_second=1234.4, peak_bytes=3 * GIB, steps=8, compiled=False)
    plan = replace(
        *(found,),
        memory=memory,
        bill=paid,
        rows=rows,
        probe=probe,
        toggled=replace(memory, activations=0.0),
        shape=replace(SHAPE, parameters=3_110_000_000, teacher=70_000_000),
        advice=[Advice("rank", "is high.", True), Advice("epochs", "are well.")],
        broken=["budget.max_cost=5 would be passed"],
        notes=["a note"],
    )
    lines = printed(lambda console: show(plan, console))
    for line in (
        "a note",
        "lr 1",
        "base a base, 3.11B parameters (test)",
        "adapter rank 16, 500,000 trainable parameters (0.02% of the base)",
        "teacher 70.0M parameters, frozen",
        "data 4 documents, 1,500 tokens an epoch, 25% trained (test)",
        "packing 2 rows, 75% full",
        "steps 6: 3 epochs of 2, about 750 tokens and 2.0 documents each",
        "probe 1,234 tokens/s, peak 3.0 GiB, over 8 steps on this machine",
        "memory: 4.0 GiB fits on a card (8.0 GiB usable), bf16-mixed; with gradient checkpointing"
        " 3.0 GiB",
        "B base 2.0 GiB frozen weights",
        "a adapter 100 MiB trained weights",
        "g gradients 101 MiB of the trained weights",
        "o optimizer 202 MiB its state",
        "A activations 1.0 GiB kept for the backward pass",
        "L logits 300 MiB one chunk, at labels only",
        "w working 50 MiB temporaries of the backward pass",
        "· overhead 271 MiB the process itself, and what allocation loses",
        "card 8.0 GiB 4.0 GiB fits 2.5 h 1.25 7.50",
        "other 1.0 GiB 4.0 GiB fits 36 s 0.00 0.03",
        "third 1.0 GiB 5.0 GiB too small - - -",
        "fourth 1.0 GiB 6.0 GiB fits - - -",
        "! rank: is high.",
        "epochs: are well.",
        "! budget.max_cost=5 would be passed: training would not start.",
    ):
        assert line in lines, line
    guessed = replace(plan, load=replace(plan.load, exact=False))
    told = printed(lambda console: show(guessed, console))
    assert "data 4 documents, about 1,500 tokens an epoch, 25% trained (test)" in told


def test_a_bar_is_drawn_to_scale() -> None:
    rest = dict.fromkeys(("adapter", "gradients", "optimizer", "logits", "working"), 0.0)
    memory = Memory(base=4.0 * GIB, activations=2.0 * GIB, overhead=2.0 * GIB, **rest)
    found = "  " + "B" * 12 + "A" * 6 + "·" * 6
    assert bar(memory, 20.0 * GIB).plain == found + " " * 36 + "|"
    whole = "  " + "B" * 30 + "A" * 15 + "·" * 15
    assert bar(memory, 8.0 * GIB).plain == whole + "|"
    assert bar(memory, 64.0 * GIB).plain == whole + "  12.5% of the machine"
    assert bar(memory, 4.0 * GIB).plain == whole + "  ends 4.0 GiB beyond the machine"
    named = replace(memory, adapter=GIB, gradients=GIB, optimizer=GIB, logits=GIB, working=2 * GIB)
    assert bar(replace(named, teacher=6 * GIB), 20 * GIB).plain == (
        "  BBBBBBBBBBBBaaagggoooAAAAAALLLwwwwww······" + "T" * 18 + "|"
    )


def test_a_sweep_is_summed_as_it_is_printed() -> None:
    plan = a_plan()
    assert plan.bill is not None
    plans = [
        replace(plan, title="one", bill=replace(plan.bill, hours=1.5, kwh=0.5, cost=4.5)),
        replace(plan, title="two", bill=replace(plan.bill, hours=0.25, kwh=0.25, cost=0.75)),
        replace(plan, title="three", bill=None),
    ]
    lines = printed(lambda console: show_total(plans, console))
    size = gib(plan.memory.total)
    assert lines[0] == "the sweep: 3 runs"
    assert f"one 6 {size} 1.5 h 0.50 4.50" in lines
    assert f"two 6 {size} 15 min 0.25 0.75" in lines
    assert f"three 6 {size} - - -" in lines
    assert f"together, one after the other 18 {size} 1.8 h 0.75 5.25" in lines


def test_the_memory_of_a_machine_is_what_a_run_can_have(monkeypatch) -> None:
    monkeypatch.setattr("graftlab.machine.memory_bytes", lambda: 3 * GIB)
    assert Machine().bytes == 3 * GIB
    assert Machine(memory=5).bytes == 5 * GIB
    assert Machine(memory=5, usable=4).bytes == 4 * GIB
