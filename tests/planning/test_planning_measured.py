"""Memory and work of a plan beside what PyTorch keeps and multiplies for the same micro-batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.data.demo import DemoData
from graftlab.models.hf import HFModel
from graftlab.models.metadata import read_metadata
from graftlab.models.tiny import TinyModel
from graftlab.objectives.policy import Policy
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.planning.estimate import settings_of
from graftlab.planning.inputs import shape_of
from graftlab.planning.memory import Memory, Settings, estimate_memory
from graftlab.planning.shape import Shape
from graftlab.planning.timing import work
from graftlab.planning.workload import Documents, StepSettings, Workload, lay_out
from graftlab.training.optimizers.adamw import AdamW
from graftlab.training.optimizers.custom import CustomOptimizer
from graftlab.training.precision import Precision, Resolved, resolve
from graftlab.types import IGNORE, Batch
from graftlab.verbs.plan import PlanSpec
from miniatures import flat_batch, miniature

CPU = torch.device("cpu")
RANK = 8
PARTS: dict[str, Any] = {"objective": SFT(), "optimizer": AdamW()}


@dataclass(slots=True)
class Setup:
    """A base with an adapter, one micro-batch, and what the plan says of both."""

    policy: Policy
    precision: Resolved
    batch: Batch
    shape: Shape
    load: Workload
    settings: Settings

    @property
    def memory(self) -> Memory:
        return estimate_memory(self.shape, self.load, self.settings)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        assert self.policy.adapter is not None
        return [parameter for _, parameter in self.policy.adapter.named_parameters()]

    def storages(self) -> set[int]:
        """Weights and buffers, which no step allocates."""
        model = self.policy.base.model
        kept = [*model.parameters(), *model.buffers()]
        return {tensor.untyped_storage()._cdata for tensor in kept}


def set_up(
    folder: Path,
    precision: str = "fp32",
    *,
    lora: Lora | None = None,
    checkpointing: bool = False,
    lengths: tuple[int, ...] = (475, 37),
) -> Setup:
    """The miniature of `folder` as training has it, and a micro-batch of these documents."""
    lora = lora or Lora(rank=RANK)
    resolved = resolve(Precision(name=precision), CPU)
    base = HFModel(path=str(folder)).load(dtype=resolved.base_dtype, device=CPU)
    adapter = attach(base, lora, seed=0, dtype=resolved.adapter_dtype)
    base.set_checkpointing(checkpointing)
    base.model.train()
    model = HFModel(path=str(folder), gradient_checkpointing=checkpointing)
    spec = PlanSpec(
        model=model, data=DemoData(), lora=lora, precision=Precision(name=precision), **PARTS
    )
    batch = flat_batch(list(lengths), vocab_size=base.vocab_size)
    labels = [int((batch.labels[0, d] != IGNORE).sum()) for d in batch.documents()]
    load = lay_out(
        Documents(np.array(lengths), np.array(labels), "test"),
        Packing(max_length=sum(lengths)),
        StepSettings(batch_size=1, accumulate=1, epochs=1, max_steps=None),
    )
    assert (load.batch_tokens, load.batch_labels) == (batch.num_tokens, sum(labels))
    shape = shape_of(read_metadata(spec.model), spec, lora.rank)
    return Setup(Policy(base, adapter), resolved, batch, shape, load, settings_of(spec, []))


@contextmanager
def saved_bytes(setup: Setup) -> Iterator[dict[int, int]]:
    """Fills a dict of storage -> bytes with what autograd keeps inside the block."""
    known, found, alive = setup.storages(), dict[int, int](), []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


class Allocated(TorchDispatchMode):
    """Bytes of the CPU tensors that are alive inside the block, and the most there were."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = dict.fromkeys(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def freed(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Miniatures with a plain attention, with norms of queries and keys, and a larger one."""
    root = tmp_path_factory.mktemp("measured")
    larger = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4}
    return {
        "llama": miniature("llama", root / "llama"),
        "qwen3": miniature("qwen3", root / "qwen3"),
        "larger": miniature("llama", root / "larger", **larger),
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
@pytest.mark.parametrize("dora", [False, True])
def test_weights_gradients_and_state_are_those_of_a_real_step(precision, dora, folders) -> None:
    setup = set_up(folders["llama"], precision, lora=Lora(rank=RANK, dora=dora))
    terms = setup.memory.terms()
    base, trained = setup.policy.base, setup.trained
    frozen = [p for p in base.model.parameters() if not p.requires_grad]
    assert terms["base"] == sum(parameter.nbytes for parameter in frozen) > 0
    assert terms["adapter"] == sum(parameter.nbytes for parameter in trained) > 0
    with setup.precision.autocast():
        setup.policy.label_nll(setup.batch).backward()
    assert terms["gradients"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert terms["gradients"] == terms["adapter"]
    assert setup.policy.adapter is not None
    optimizer = AdamW().build(list(setup.policy.adapter.named_parameters()), lr=1e-3)
    optimizer.step()
    state = [t for values in optimizer.state.values() for t in values.values()]
    assert terms["optimizer"] == sum(t.nbytes for t in state if torch.is_tensor(t) and t.ndim)


def rest_of(setup: Setup) -> int:
    """Bytes a token keeps that the formula leaves out: one over the root mean square of each norm,
    cosines and sines of the rotation.
    """
    shape = setup.shape
    norms = 2 + (shape.heads + shape.key_heads if shape.qk_norm else 0)
    return 4 * norms * shape.layers + 2 * setup.settings.wide * shape.head_dim


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("llama", {}), ("llama", {"dora": True}), ("llama", {"dropout": 0.1}), ("qwen3", {})],
    ids=str,
)
def test_activations_are_what_autograd_keeps(kind, options, precision, folders) -> None:
    """To the byte, per token; DoRA's norms are the same for every token."""
    kept = {}
    for first in (219, 475):
        setup = set_up(
            folders[kind], precision, lora=Lora(rank=RANK, **options), lengths=(first, 37)
        )
        with saved_bytes(setup) as found, setup.precision.autocast():
            setup.policy.hidden(setup.batch)
        kept[setup.batch.num_tokens] = sum(found.values())
    assert list(kept) == [256, 512]
    per_token = (kept[512] - kept[256]) / 256
    assert setup.memory.activations / 512 + rest_of(setup) == per_token


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_of_a_step_is_within_what_is_planned(precision, checkpointing, folders) -> None:
    """All that is alive at once, forward and backward, beside the terms that come and go."""
    setup = set_up(folders["larger"], precision, checkpointing=checkpointing)
    with Allocated(setup.storages()) as allocated:
        with setup.precision.autocast():
            loss = setup.policy.label_nll(setup.batch)
        loss.backward()
    memory = setup.memory
    planned = memory.activations + memory.logits + memory.working + memory.gradients
    gradients = sum(p.grad.nbytes for p in setup.trained if p.grad is not None)
    assert allocated.now >= gradients > 0  # it did see the step
    assert allocated.peak < planned < 1.4 * allocated.peak
    if checkpointing:
        whole = replace(setup.settings, checkpointing=False)
        assert allocated.peak < 0.75 * estimate_memory(setup.shape, setup.load, whole).activations


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_logits_are_what_a_chunk_s_loss_allocates(precision, folders) -> None:
    setup = set_up(folders["llama"], precision)
    with torch.no_grad(), setup.precision.autocast():
        hidden, labels = setup.policy.labelled(setup.batch)
    hidden.requires_grad_()
    with Allocated(setup.storages()) as allocated:
        with setup.precision.autocast():
            loss = torch.nn.functional.cross_entropy(setup.policy.logits(hidden), labels)
        loss.backward()
    assert len(labels) == 170
    assert allocated.peak < setup.memory.logits < 1.4 * allocated.peak


@dataclass(slots=True)
class Products:
    """Multiply-adds of matrix products, twice: what `FlopCounterMode` counts on a processor."""

    counter: FlopCounterMode = field(default_factory=lambda: FlopCounterMode(display=False))

    @property
    def total(self) -> int:
        counts = self.counter.get_flop_counts()["Global"]
        products = {"aten.mm", "aten.bmm", "aten.baddbmm"}
        assert {str(name) for name in counts} <= products, counts  # attention is not counted
        return sum(counts.values())


@pytest.mark.parametrize(("dora", "checkpointing"), [(False, False), (True, False), (False, True)])
def test_work_is_what_a_step_multiplies(dora, checkpointing, folders) -> None:
    """To the operation. What the plan counts and a step spares is written out."""
    lengths = (150, 150, 150)
    lora = Lora(rank=RANK, dora=dora)
    setup = set_up(folders["llama"], lora=lora, checkpointing=checkpointing, lengths=lengths)
    training, validating = Products(), Products()
    with training.counter:
        setup.policy.label_nll(setup.batch).backward()
    with validating.counter, torch.no_grad():
        setup.policy.label_nll(setup.batch)
    tokens, hidden, key = 450, 64, 32
    # Two products (scores, and values by weights) over half a document on average, in two layers.
    attention = 2 * 2 * hidden * (150 / 2) * 2 * tokens
    # Nothing below the first layer is trained: q, k and v there need no gradient of their input.
    spared = 2 * tokens * (hidden * (hidden + 2 * key) + 3 * hidden * RANK)
    # DoRA's magnitudes, one an output in two layers, are multiplied element by element.
    magnitudes = 2 * tokens * (3 * hidden + 2 * key + 2 * 128) if dora else 0
    spared += 6 * magnitudes
    # What a node adds in place the counter passes over: h times B forward, and u times A backward.
    width = 3 * hidden + 2 * key + 2 * 128  # of all outputs of a layer, and of all inputs
    added = 0 if dora else 2 * tokens * RANK * 2 * width
    spared += added * (3 if checkpointing else 2) - (0 if dora else 2 * tokens * RANK * 3 * hidden)
    found = work(setup.shape, setup.load, checkpointing=checkpointing)
    passes = 4 if checkpointing else 3
    planned = tokens * found.train_token + found.micro_batch
    assert planned - passes * attention - spared == pytest.approx(training.total, rel=1e-9)
    planned = tokens * found.valid_token + found.micro_batch
    assert planned - attention - 2 * magnitudes - added == pytest.approx(validating.total, rel=1e-9)
    assert (found.micro_batch > 0) == dora


OPTIMIZERS = ("SGD", "SGD with momentum", "Adagrad", "RMSprop", "Rprop", "Adam", "Adadelta")


@pytest.mark.parametrize("name", [*OPTIMIZERS, "NAdam", "Adafactor"])
def test_an_optimizer_s_state_is_what_it_keeps(name: str) -> None:
    target, _, momentum = name.partition(" with ")
    arguments = {"momentum": 0.9} if momentum else {}
    chosen = CustomOptimizer(target=f"torch.optim.{target}", arguments=arguments)
    matrix = torch.nn.Parameter(torch.ones(64, 512))
    optimizer = chosen.build([("lora_A", matrix)], lr=1e-3)
    matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    state = [t for t in optimizer.state[matrix].values() if torch.is_tensor(t) and t.ndim]
    kept = sum(tensor.nbytes for tensor in state) / matrix.numel()
    parts = {**PARTS, "optimizer": chosen}
    spec = PlanSpec(model=TinyModel(), data=DemoData(), precision=Precision(name="fp32"), **parts)
    planned = settings_of(spec, []).optimizer_bytes
    assert planned == kept or (name == "Adafactor" and kept < planned < 2 * kept)
