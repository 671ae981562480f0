"""Slots read as the whole model does, with whatever adapter is on, and never write to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from graftlab.adapters.base import Adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models import hf_base, lean_weights
from graftlab.models.base import Base
from graftlab.models.hf import HFModel
from graftlab.models.quantization.int8 import Int8
from graftlab.models.slots import Piece, Slots
from reading import assert_padding_is_not_read, close, tokens

Make = Callable[..., Base]
SERVED = ["llama", "qwen2", "qwen3"]
CPU = torch.device("cpu")


def whole(base: Base, ids: Tensor) -> Tensor:
    """Logits (T, V) of a row (T,), by transformers."""
    with torch.no_grad(), base.plain():
        return base.model(input_ids=ids[None], use_cache=False).logits[0].float()


def slots_of(base: Base, count: int) -> Slots:
    found = base.slots(count)
    assert found is not None
    return found


def drawn(base: Base, lora: Lora, *, dtype: torch.dtype = torch.float32) -> Adapter:
    """An adapter that says something: B is not zero."""
    adapter = attach(base, lora, seed=1, dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.add_(noise.to(dtype))
    return adapter


@pytest.mark.parametrize("kind", SERVED)
def test_slots_are_read_side_by_side_in_any_pieces(kind: str, make_base: Make) -> None:
    base = make_base(kind)
    rows = [tokens(1, length, seed=length)[0] for length in (300, 9, 23)]
    ids = [row.tolist() for row in rows]
    with base.answering():
        slots = slots_of(base, 2)
        first = slots.read([Piece(0, ids[0][:290], last=0), Piece(1, ids[1], last=9)])
        later = slots.read([Piece(1, [5]), Piece(0, ids[0][290:], last=10)])
        slots.empty(1)  # for another one
        third = slots.read([Piece(0, [7]), Piece(1, ids[2], last=2)])
    close(first, whole(base, rows[1]))
    close(later[:1], whole(base, torch.tensor([*ids[1], 5]))[-1:])
    close(later[1:], whole(base, rows[0])[-10:])
    close(third[:1], whole(base, torch.tensor([*ids[0], 7]))[-1:])
    close(third[1:], whole(base, rows[2])[-2:])


def test_a_context_in_slots_keeps_the_promises_of_contexts(make_base: Make) -> None:
    base, ids, wrong = make_base("qwen2"), tokens(2, 20), tokens(2, 5, seed=1)
    expected = torch.stack([whole(base, row) for row in ids])
    with base.answering():
        with base.context(rewind=True) as context:
            assert type(context).__name__ == "SlotContext"
            pieces = [context.feed(ids[:, :7]), context.feed(ids[:, 7:15])]
            context.feed(wrong)
            context.crop(15)
            pieces += [context.feed(ids[:, 15:16]), context.feed(ids[:, 16:])]
            assert context.length == 20
        close(torch.cat(pieces, dim=1), expected)
        assert_padding_is_not_read(base, (22, 5, 11), whole=lambda row: whole(base, row))


ADAPTERS = [
    Lora(rank=4),
    Lora(rank=4, dora=True, targets="all-linear"),
    Lora(rank=4, rslora=True, targets="attn", layers=1),
    Lora(rank=2, modules_to_save=["lm_head"]),
]


@pytest.mark.parametrize("lora", ADAPTERS, ids=["lora", "dora", "rslora", "head"])
def test_an_adapter_is_folded_into_a_copy(lora: Lora, make_base: Make) -> None:
    base, ids = make_base("llama"), tokens(1, 12)[0]
    adapter = drawn(base, lora)
    weights = [*base.model.parameters(), *base.model.buffers()]
    before = [(weight.data_ptr(), weight._version, weight.clone()) for weight in weights]

    def check() -> Tensor:
        expected = whole(base, ids)
        close(slots_of(base, 1).read([Piece(0, ids.tolist(), last=12)]), expected)
        return expected

    with base.answering():
        said = [check()]
        with adapter.scaled(0.5):
            said.append(check())
        with adapter.disabled():
            said.append(check())
        with torch.no_grad():  # as training goes on
            adapter.named_parameters()[1][1].mul_(3)
        said.append(check())
    assert all(
        (one - other).abs().max() > 1e-3 for one in said for other in said if one is not other
    )
    (_, trained), *_ = adapter.named_parameters()[1:]
    for weight, (place, version, values) in zip(weights, before, strict=True):
        if weight is not trained:
            assert (weight.data_ptr(), weight._version) == (place, version)
            assert torch.equal(weight, values)


def test_a_fold_is_what_peft_merges(make_base: Make) -> None:
    base = make_base("llama")
    adapter: Any = drawn(base, Lora(rank=4))
    with base.answering():
        weights = base._lean_weights()  # type: ignore[attr-defined]
    for number, lean in enumerate(weights.layers):
        layer = adapter.layers[f"model.layers.{number}.mlp.down_proj"]
        layer.merge(safe_merge=True)
        (panel,) = lean.down.panels
        torch.testing.assert_close(panel.t(), layer.base_layer.weight, rtol=1e-6, atol=1e-7)


def test_copies_are_kept_as_long_as_somebody_answers(
    make_base: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base("llama")
    adapter = drawn(base, Lora(rank=4))
    built: list[Any] = []
    real = lean_weights._build

    def counted(*given: Any, **more: Any) -> Any:
        built.append(more)
        return real(*given, **more)

    monkeypatch.setattr(lean_weights, "_build", counted)
    assert base.slots(1) is None, "nobody answers"
    for _ in range(2):
        with base.answering(), base.answering():
            for _ in range(3):
                slots_of(base, 1)
                with adapter.disabled():
                    slots_of(base, 1)
    assert len(built) == 4


@pytest.mark.parametrize("stored", ["no room", "bf16", "bf16-mixed", "int8"])
def test_adapters_stay_apart_where_nothing_is_copied(
    stored: str, make_base: Make, make_miniature: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = torch.bfloat16 if "bf16" in stored else torch.float32
    if stored == "int8":
        codes = HFModel(path=str(make_miniature("qwen2")), quantization=Int8())
        base: Base = codes.load(dtype=dtype, device=CPU)
    else:
        base = make_base("qwen2", dtype)
    for room in (lean_weights, hf_base):  # for copies, and for codes to be wide
        monkeypatch.setattr(room, "free_memory_bytes", lambda: 0)
    adapter = drawn(base, Lora(rank=4), dtype=dtype if stored == "bf16" else torch.float32)
    ids = tokens(1, 30)[0]
    with torch.autocast("cpu", torch.bfloat16, enabled=stored == "bf16-mixed"), base.answering():
        said = slots_of(base, 1).read([Piece(0, ids.tolist(), last=30)])
        expected = whole(base, ids)
        with adapter.disabled():
            plain = slots_of(base, 1).read([Piece(0, ids.tolist(), last=30)])
            of_base = whole(base, ids)
    near = 0.02 if dtype == torch.bfloat16 else 1e-5
    for ours, theirs in ((said, expected), (plain, of_base)):
        assert (ours - theirs).norm() < near * theirs.norm()
    assert (said - plain).norm() > 0.3 * plain.norm()


def test_dora_is_left_to_peft_where_it_cannot_be_folded(
    make_base: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base("llama")
    drawn(base, Lora(rank=4, dora=True))
    with base.answering():
        slots_of(base, 1)
        monkeypatch.setattr(lean_weights, "free_memory_bytes", lambda: 0)
    with base.answering():
        assert base.slots(1) is None


def test_what_slots_do_not_serve_is_left_to_transformers(make_base: Make) -> None:
    for kind in ("gemma3", "mistral", "granite"):  # mistral slides
        base = make_base(kind)
        with base.answering():
            assert base.slots(1) is None
            with base.context() as context:
                assert context.feed(tokens(1, 4)).shape[1] == 4
