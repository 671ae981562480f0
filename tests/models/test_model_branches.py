"""Branches behind a shared prompt: what a model makes of them, its gradients, and the probe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch

from branched import as_token_set, pair_documents
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.errors import LeakError
from graftlab.models.base import Base
from graftlab.models.compile import compile_layers, restore_layers
from graftlab.models.probe_branches import check_branches
from graftlab.objectives.policy import Policy
from graftlab.packing.rows import make_batch
from graftlab.types import Batch
from miniatures import TRANSFORMERS

MakeBase = Callable[..., Base]
BF16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
TOGETHER = as_token_set(pair_documents())
APART = as_token_set(pair_documents(), share_prompts=False)


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_every_architecture_passes_and_nothing_is_left_changed(
    kind: str, precision: str, make_base: MakeBase
) -> None:
    mixed = precision == "bf16-mixed"
    base = make_base(kind, dtype=torch.bfloat16 if mixed else torch.float32)
    adapter = attach(base, Lora(rank=4, dropout=0.5), seed=0, dtype=torch.float32)
    before = adapter.state_dict()
    base.model.train()
    line = check_branches(base, adapter, autocast=BF16 if mixed else nullcontext)
    assert "branches behind a shared prompt" in line
    assert base.model.training
    assert all(torch.equal(before[n], t) for n, t in adapter.state_dict().items())


def test_the_slow_reference_passes(make_base: MakeBase) -> None:
    base = make_base("gemma2")
    base.attention = "dense"
    check_branches(base, None, autocast=nullcontext)


def with_parents(monkeypatch: pytest.MonkeyPatch, base: Base, parents: list[int] | None) -> None:
    """Have the model hear of other parents than the batch has."""
    body = type(base.body)
    honest = body.forward
    told = None if parents is None else torch.tensor(parents, dtype=torch.int32)

    def careless(self: Any, **kwargs: Any) -> Any:
        given = kwargs.pop("parents")
        return honest(self, parents=None if given is None else told, **kwargs)

    monkeypatch.setattr(body, "forward", careless)


def test_a_branch_that_sees_its_sister_is_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    with_parents(monkeypatch, base, [-1, 0, 1, -1])
    with pytest.raises(
        LeakError, match=r"chosen branch moved .* rejected branch .*packing\.share_prompts=false"
    ):
        check_branches(base, None, autocast=nullcontext)


def test_a_branch_that_does_not_see_its_prompt_is_caught(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base()
    with_parents(monkeypatch, base, None)
    with pytest.raises(LeakError, match=r"not computed as it is alone.*share_prompts=false"):
        check_branches(base, None, autocast=nullcontext)


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
        check_branches(base, adapter, autocast=nullcontext)


def gradients(base: Base, batches: list[Batch], **options: Any) -> tuple[float, list[torch.Tensor]]:
    """The summed loss of `batches`, and what it tells an adapter that has begun to learn."""
    adapter = attach(base, Lora(rank=4, **options), seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in adapter.named_parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    total = torch.zeros(())
    for batch in batches:
        adapter.set_step(seed=0, step=0, micro_step=0)
        loss = Policy(base, adapter).label_nll(batch)
        loss.backward()
        total += loss.detach()
    found = [p.grad.clone() for _, p in adapter.named_parameters() if p.grad is not None]
    adapter.detach()
    return total.item(), found


def assert_near(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
        assert other.abs().max() > 0


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "gemma3", "mistral"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pair_trains_as_two_documents_do(
    kind: str, checkpointing: bool, make_base: MakeBase
) -> None:
    """One prompt for both: the same loss and gradients, whether layers are recomputed or not."""
    base = make_base(kind)
    base.set_checkpointing(checkpointing)
    everything = list(range(len(TOGETHER)))
    loss, found = gradients(base, [make_batch(TOGETHER, everything, step_units=1)])
    expected, wanted = gradients(base, [make_batch(APART, everything, step_units=1)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_near(found, wanted)
    assert int(TOGETHER.lengths.sum()) < 0.8 * int(APART.lengths.sum())


def test_rows_of_pairs_add_up(make_base: MakeBase) -> None:
    """A pair's gradient does not depend on what shares its row or its step."""
    base = make_base()
    base.set_checkpointing(False)
    whole = [make_batch(TOGETHER, [0, 1, 2], step_units=1)]
    parts = [make_batch(TOGETHER, [index], step_units=1) for index in (2, 0, 1)]
    assert_near(gradients(base, whole)[1], gradients(base, parts)[1])


def test_dropout_draws_once_for_a_shared_prompt(make_base: MakeBase) -> None:
    """Masks are drawn by position in the row, so both answers see the prompt under one of them."""
    base = make_base()
    adapter = attach(base, Lora(rank=4, dropout=0.5), seed=0, dtype=torch.float32)
    for _, parameter in adapter.named_parameters():
        parameter.data += 0.05
    base.set_checkpointing(False)
    batch = make_batch(TOGETHER, [0], step_units=1)
    prompt, chosen, rejected = batch.segments()

    def hidden(step: int, changed: slice | None = None) -> torch.Tensor:
        adapter.set_step(seed=0, step=step, micro_step=0)
        other = batch.to("cpu")
        if changed is not None:
            other.input_ids = batch.input_ids.clone()
            other.input_ids[0, changed] = (batch.input_ids[0, changed] + 200) % 400
        with torch.no_grad():
            return base.hidden(other)[0]

    ours = hidden(0)
    assert not ours[prompt].equal(hidden(1)[prompt])
    for changed, still in ((chosen, rejected), (rejected, chosen)):
        moved = hidden(0, changed)
        assert not moved[changed].equal(ours[changed])
        assert moved[prompt].equal(ours[prompt])
        assert moved[still].equal(ours[still])


def test_compiled_layers_see_branches(make_base: MakeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of the first batch serve those of any number of branches, and of none."""
    real = torch.compile
    counted: list[int] = []
    graphs = 0

    def counting(graph: Any, inputs: Any) -> Any:
        counted.append(len(inputs))
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda fn, **options: real(fn, backend=counting, **options)
    )
    base = make_base()
    base.set_checkpointing(False)
    batches = [make_batch(TOGETHER, some, step_units=1) for some in ([0, 1, 3], [1, 2], [3, 3])]
    expected = [gradients(base, [batch]) for batch in batches]
    torch._dynamo.reset()
    compile_layers(base)
    try:
        for batch, (loss, wanted) in zip(batches, expected, strict=True):
            got, found = gradients(base, [batch])
            assert got == pytest.approx(loss, rel=1e-6)
            assert_near(found, wanted)
            graphs = graphs or len(counted)
            assert len(counted) == graphs > 0
    finally:
        restore_layers(base)
