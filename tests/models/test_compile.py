"""Compiled layers: decided by what they save, equal to eager ones, few graphs, no trace left."""

from __future__ import annotations

import functools
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.models import compile as compiling
from graftlab.models.base import Base
from graftlab.models.compile import compile_layers, find_obstacle, plan_compile, restore_layers
from graftlab.types import Batch
from miniatures import flat_batch

CPU = torch.device("cpu")
ROWS = [[40, 30], [97], [20, 25, 20], [61, 3, 77, 20]]
"""Document lengths of rows of several lengths and numbers of documents."""


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Compile with AOT autograd alone, seconds instead of minutes; holds every graph made."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    made: list[object] = []
    torch._dynamo.utils.counters.clear()  # of other tests of this process

    def keep(graph: torch.fx.GraphModule, _: object) -> object:
        made.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, inference_compiler=keep)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield made
    torch._dynamo.reset()


def gradients(base: Base, batch: Batch, *, mixed: bool) -> list[Tensor]:
    """Adapter gradients of a loss on all hidden states."""
    assert base.adapter is not None
    parameters = [parameter for _, parameter in base.adapter.named_parameters()]
    with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
        loss = base.hidden(batch).float().square().mean()
    return list(torch.autograd.grad(loss, parameters))


def distance(found: list[Tensor], wanted: list[Tensor]) -> float:
    flat = [torch.cat([g.flatten() for g in part]) for part in (found, wanted)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def adapted(make_base: Callable[..., Base], kind: str, dtype: torch.dtype) -> Base:
    base = make_base(kind, dtype)
    adapter = attach(base, Lora(rank=4, init="gaussian"), seed=0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # B starts at zero, where half of the gradients would be zero too
        for _, parameter in adapter.named_parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return base


@pytest.mark.parametrize(
    ("kind", "training", "evaluating"),
    [("qwen2", 2, 1), pytest.param("gemma3", 2, 2, marks=pytest.mark.slow)],
)
def test_two_kinds_of_graphs_serve_all_rows(
    make_base: Callable[..., Base], graphs: list[object], kind: str, training: int, evaluating: int
) -> None:
    """A training graph for the first layer (its input needs no gradient) and one for the other,
    an evaluation graph for each kind of attention. No later row adds any."""
    base = adapted(make_base, kind, torch.bfloat16)
    batches = [flat_batch(lengths, seed=i) for i, lengths in enumerate(ROWS)]
    eager = [gradients(base, batch, mixed=True) for batch in batches]
    compile_layers(base)
    for batch, wanted in zip(batches, eager, strict=True):
        # The compiler rounds base product and update before it adds them, the node once behind it.
        assert distance(gradients(base, batch, mixed=True), wanted) < 0.05
        with torch.no_grad(), base.evaluating(), torch.autocast("cpu", torch.bfloat16):
            base.hidden(batch)
        assert len(graphs) == 2 * training + evaluating
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_recomputation_stays_on_and_restoring_leaves_nothing(
    make_base: Callable[..., Base], graphs: list[object]
) -> None:
    base = adapted(make_base, "qwen2", torch.float32)
    batch = flat_batch(ROWS[0])
    wanted = gradients(base, batch, mixed=False)
    base.set_checkpointing(True)
    before = [set(layer.__dict__) for layer in base.layers]
    compile_layers(base)
    assert distance(gradients(base, batch, mixed=False), wanted) < 1e-6
    assert any("segments_forward" in str(graph.code) for graph in graphs[1::2]), "recomputed"
    restore_layers(base)
    assert [set(layer.__dict__) for layer in base.layers] == before
    base.set_checkpointing(False)
    count = len(graphs)
    assert distance(gradients(base, batch, mixed=False), wanted) < 1e-6
    assert len(graphs) == count


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Inductor's imports have warnings of their own
@pytest.mark.skipif(find_obstacle(CPU) is not None, reason=str(find_obstacle(CPU)))
def test_inductor_gradients_equal_eager_ones(make_base: Callable[..., Base]) -> None:
    """The real backend: it would read a gradient of an unannounced dtype or layout as garbage."""
    for dtype, mixed, bound in ((torch.float32, False, 1e-5), (torch.bfloat16, True, 3e-2)):
        torch._dynamo.reset()
        base = adapted(make_base, "qwen2", dtype)
        batch = flat_batch(ROWS[3])
        wanted = gradients(base, batch, mixed=mixed)
        compile_layers(base)
        assert distance(gradients(base, batch, mixed=mixed), wanted) < bound


def plan(mode: str = "auto", steps: int = 10_000, **options: object) -> tuple[bool, str]:
    arguments = {"tokens_per_step": 3500.0, "device": CPU, **options}
    return plan_compile(mode, planned_steps=steps, **arguments)  # type: ignore[arg-type]


def test_auto_compiles_where_the_steps_repay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_obstacle", lambda _: None)
    few, why_not = plan(steps=20)
    many, why = plan(steps=5000)
    assert (few, many) == (False, True)
    assert "would save" in why_not
    assert "saves" in why
    # The bigger the model, the sooner: a token saves more.
    assert plan(steps=100, num_parameters=500_000_000)[0]
    assert not plan(steps=100, num_parameters=5_000_000)[0]
    assert plan("on", steps=1) == (True, "as configured")
    assert plan("off") == (False, "as configured")
    assert not plan(steps=299, device=torch.device("cuda"))[0]
    assert plan(steps=300, device=torch.device("cuda"))[0]


def test_a_machine_that_cannot_compile_is_told_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert plan("on", device=torch.device("mps")) == (False, find_obstacle(torch.device("mps")))
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "python3-dev" in plan("on")[1]
    (tmp_path / "Python.h").touch()
    assert plan("on")[0]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    chosen, why = plan("auto")
    assert not chosen
    assert "C++ compiler" in why
    monkeypatch.setattr(compiling, "find_spec", lambda _: None)
    assert "Triton" in plan("on", device=torch.device("cuda"))[1]
