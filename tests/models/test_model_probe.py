"""The isolation probe: passes where documents are isolated, refuses where they are not."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.errors import LeakError
from graftlab.models.base import Base
from graftlab.models.probe import check_isolation
from miniatures import TRANSFORMERS

MakeBase = Callable[..., Base]
BF16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_isolated_documents_pass_and_nothing_is_left_changed(
    kind: str, precision: str, make_base: MakeBase
) -> None:
    mixed = precision == "bf16-mixed"
    base = make_base(kind, dtype=torch.bfloat16 if mixed else torch.float32)
    adapter = attach(base, Lora(rank=4, dropout=0.5), seed=0, dtype=torch.float32)
    before = adapter.state_dict()
    base.model.train()
    state = torch.random.get_rng_state()
    line = check_isolation(base, adapter, autocast=BF16 if mixed else nullcontext)
    assert "bit-identical" in line
    assert "segments" in line
    assert base.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[n], t) for n, t in adapter.state_dict().items())


@pytest.mark.parametrize("backend", ["segments", "dense"])
def test_every_backend_of_the_cpu_passes(backend: str, make_base: MakeBase) -> None:
    base = make_base("gemma2")
    base.attention = backend
    assert backend in check_isolation(base, None, autocast=nullcontext)


@pytest.mark.parametrize("kind", ["lfm2", "qwen3_next"])
def test_layers_that_carry_state_are_caught_in_a_shared_pass(
    kind: str, make_base: MakeBase
) -> None:
    base = make_base(kind)
    base.__dict__["stateful_layers"] = []  # as if such layers were not known to leak
    with pytest.raises(LeakError, match=r"see each other.*model.attention=own"):
        check_isolation(base, None, autocast=nullcontext)


def test_attention_that_ignores_boundaries_is_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    body = type(base.body)
    honest = body.forward

    def careless(self: Any, *, boundaries: Any = None, **kwargs: Any) -> Any:
        ends = None if boundaries is None else boundaries[[0, -1]]
        return honest(self, boundaries=ends, **kwargs)

    monkeypatch.setattr(body, "forward", careless)
    with pytest.raises(LeakError, match=r"hidden states by up to .* and logits by up to"):
        check_isolation(base, None, autocast=nullcontext)


def test_documents_that_are_isolated_but_not_as_alone_are_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    body = type(base.body)
    honest = body.forward

    def stretched(self: Any, *, position_ids: torch.Tensor, **kwargs: Any) -> Any:
        # Rotary positions are relative, a shift would not show: stretch all but the first document.
        running = torch.arange(position_ids.shape[1])[None]
        factor = torch.where(running > position_ids, 2, 1)
        return honest(self, position_ids=position_ids * factor, **kwargs)

    monkeypatch.setattr(body, "forward", stretched)
    with pytest.raises(LeakError, match="not computed as it is alone"):
        check_isolation(base, None, autocast=nullcontext)


def test_a_leak_through_the_adapter_alone_is_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    layer = adapter.layers["model.layers.0.self_attn.q_proj"]
    honest = layer.forward

    def leaking(x: torch.Tensor) -> torch.Tensor:
        made = honest(x)
        return made + (made - layer.base_layer(x)).mean(1, keepdim=True)

    monkeypatch.setattr(layer, "forward", leaking)
    with pytest.raises(LeakError):
        check_isolation(base, adapter, autocast=nullcontext)


def test_the_probe_is_quick(make_base: MakeBase) -> None:
    base = make_base()
    adapter = attach(base, Lora(rank=4), seed=0, dtype=torch.float32)
    start = time.process_time()
    check_isolation(base, adapter, autocast=nullcontext)
    assert time.process_time() - start < 0.5
