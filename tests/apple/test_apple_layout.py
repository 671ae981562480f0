"""The order of an adapter's tensors: tamm's own, whatever order a file has."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from afm_adapters import MINI, REAL, random_state, tamm_model
from graftlab.apple.exports.layout import layout_of, layout_of_sizes
from graftlab.errors import ModelError


@pytest.mark.parametrize("layout", [MINI, REAL], ids=["mini", "real"])
def test_names_shapes_and_order_are_those_of_tamms_model(layout):
    pytest.importorskip("tamm")
    model = tamm_model(layout, device="meta")
    theirs = [(n, tuple(p.shape)) for n, p in model.named_parameters() if "adapter" in n]
    assert [(slot.name, slot.shape) for slot in layout.slots()] == theirs
    assert sorted(theirs) != theirs, "sorting would have been another order"


def test_the_real_model_has_700_tensors_of_66_633_728_numbers():
    slots = list(REAL.slots())
    assert len(slots) == 700
    assert sum(slot.shape[0] * slot.shape[1] for slot in slots) == 66_633_728
    assert sum(1 for slot in slots if slot.heads == 16) == 56, "every q turns by position"
    assert sum(1 for slot in slots if slot.heads == 2) == 35, "k only where there is one"


def test_a_state_dict_tells_its_layout_in_any_order():
    state = random_state()
    assert layout_of(dict(sorted(state.items())), heads=4) == MINI
    assert layout_of({slot.name: torch.zeros(slot.shape) for slot in REAL.slots()}) == REAL


@pytest.mark.parametrize("layout", [MINI, REAL], ids=["mini", "real"])
def test_sizes_tell_the_layout(layout):
    elements = [slot.shape[0] * slot.shape[1] for slot in layout.slots()]
    found = layout_of_sizes(elements, layout.rank)
    assert found is not None
    assert dataclasses.replace(found, heads=layout.heads, kv_heads=layout.kv_heads) == layout
    assert layout_of_sizes(elements[:-1], layout.rank) is None
    assert layout_of_sizes([*elements[1:], elements[0]], layout.rank) is None
    assert layout_of_sizes(elements, 7) is None


def broken(change):
    state = random_state()
    change(state)
    return state


QKV = "layers.segment_0.layer_1.attention.qkv_transform.adapters.base_adapter.lora_0."
OUTPUT = "layers.segment_0.layer_0.attention.output_transform.adapters.base_adapter.a_transpose"
PROBLEMS = {
    "missing": (lambda s: s.pop(f"{QKV}a_transpose"), f"{QKV}a_transpose is missing"),
    "extra": (lambda s: s.update(adapter=torch.zeros(1)), "adapter is not part of it"),
    "rank": (lambda s: s.update({f"{QKV}a_transpose": torch.zeros(64, 2)}), r"shape \(64, 2\)"),
    "fewer linears": (lambda s: s.pop(OUTPUT), "does not adapt all linears"),
    "layers": (
        lambda s: [s.pop(n) for n in list(s) if "segment_1" in n and "layer_1" not in n],
        r"segment_1\.layer_0\..* is missing",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_another_adapter_is_refused_with_the_reason(case):
    change, message = PROBLEMS[case]
    with pytest.raises(ModelError, match=message):
        layout_of(broken(change), heads=4)


def test_heads_that_cannot_be_are_refused():
    with pytest.raises(ModelError, match="do not fall into 3 heads"):
        layout_of(random_state(), heads=3)


def test_heads_are_not_guessed_for_another_model():
    with pytest.raises(ModelError, match="how many heads there are: give the model"):
        layout_of(random_state())
