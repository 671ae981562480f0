"""The joint layer and the stack: gradients, padding, views, and blocks that stay apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from branched import as_token_set, pair_documents
from graftlab.adapters.dropout import KeyedDropout
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.errors import ConfigError, LeakError
from graftlab.objectives.policy import Policy
from graftlab.packing.rows import make_batch
from graftlab.text.encode import TokenSet, encode
from graftlab.training.joint import linear as joint_linear
from graftlab.training.joint import probe as joint_probe
from graftlab.training.joint import shared_layers as trunk
from graftlab.training.joint.linear import JointLinear
from graftlab.training.joint.probe import check_apart
from graftlab.training.joint.shared_layers import lay_boundaries, lay_parents
from graftlab.training.joint.stack import SlicePolicy, Stack, require_stackable
from graftlab.training.precision import Precision, resolve
from miniatures import TRANSFORMERS
from tolerance import assert_same

LORAS = [
    Lora(rank=2),
    Lora(rank=8, targets="attn", dropout=0.2),
    Lora(rank=5, targets=["v_proj", "down_proj"], layers=1, scale=3.0),
]


@pytest.fixture
def tokens(spec) -> TokenSet:
    tokenizer = spec.model.load_tokenizer()
    return encode(spec.data.load().train, tokenizer, max_length=80)


@pytest.fixture
def detached(make_base):
    """A base and three adapters whose updates are not zero."""

    def make(loras=LORAS, dtype=torch.float32):
        base = make_base(dtype=dtype)
        adapters = []
        for number, lora in enumerate(loras):
            adapter = attach(base, lora, seed=number, dtype=torch.float32)
            adapter.detach()
            torch.manual_seed(number)
            for _, parameter in adapter.named_parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
            adapters.append(adapter)
        return base, adapters

    return make


def no_autocast():
    return resolve(Precision(name="fp32"), torch.device("cpu")).autocast()


def score(policy):
    return lambda batch: policy.label_nll(batch) / batch.step_units


def passed(base, stack, batch):
    """Forward and backward of all adapters; returns their gradients by name."""
    policies = [SlicePolicy(base, adapter) for adapter in stack.adapters]
    stack.zero_grad()
    stack.backward(batch, policies, [score(policy) for policy in policies], autocast=no_autocast)
    return [
        {name: p.grad.clone() for name, p in adapter.named_parameters()}
        for adapter in stack.adapters
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_backward_pass_is_that_of_the_forward(dropout):
    torch.manual_seed(0)
    linear = nn.Linear(5, 4, dtype=torch.float64).requires_grad_(False)
    down = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    up = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.5, 2.0, 0.3], dtype=torch.float64)[:, None, None]
    drops = [None, KeyedDropout(dropout, torch.tensor(7)) if dropout else None, None]
    x = torch.randn(1, 9, 5, dtype=torch.float64, requires_grad=True)

    def run(x, down, up):
        return JointLinear(linear, down=down, up=up, scale=scale, drops=drops)(x)

    assert torch.autograd.gradcheck(run, (x, down, up))
    blocks = zip(x[0].split(3), down, up, scale, strict=True)
    plain = [linear(block) + s * (block @ a.T @ b) for block, a, b, s in blocks]
    same = torch.allclose(run(x, down, up)[0], torch.cat(plain))
    assert same == (dropout == 0)


def test_gradients_are_those_of_each_adapter_alone(detached, tokens):
    base, adapters = detached()
    base.set_checkpointing(False)  # train mode: dropout is drawn
    batch = make_batch(tokens, [0, 1, 2], step_units=40)
    for adapter in adapters:
        adapter.set_step(seed=3, step=1, micro_step=0)
    alone = []
    for adapter in adapters:
        with adapter.mounted():
            torch.autograd.backward(Policy(base, adapter).label_nll(batch) / batch.step_units)
        alone.append({name: p.grad for name, p in adapter.named_parameters()})
    together = passed(base, Stack(base, adapters), batch)
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            assert gradient.abs().max() > 0, name
            assert_same(ours[name], gradient)


def test_padding_stays_zero_by_itself(detached, tokens):
    """Smaller ranks and missing modules: neither values nor gradients outside an adapter's own."""
    base, adapters = detached()
    stack = Stack(base, adapters)
    batch = make_batch(tokens, [0, 1], step_units=20)
    for _ in range(3):
        passed(base, stack, batch)
        for adapter in adapters:
            torch.optim.AdamW([p for _, p in adapter.named_parameters()], lr=1e-2).step()
    padded = 0
    for name, module in stack.modules.items():
        for index, adapter in enumerate(adapters):
            rank = adapter.config.r if name in adapter.layers else 0
            for factor in (module.down, module.up):
                assert factor.grad[index, rank:].abs().sum() == 0
                assert factor.detach()[index, rank:].abs().sum() == 0
                padded += factor[index, rank:].numel()
                assert rank == 0 or factor.grad[index, :rank].abs().sum() > 0
    assert padded > 0


def test_weights_are_views_until_they_are_released(detached, tokens):
    base, adapters = detached()
    before = [adapter.state_dict() for adapter in adapters]
    originals = {name: id(module) for name, module in base.model.named_modules()}
    stack = Stack(base, adapters)
    name, module = next(iter(stack.modules.items()))
    weight = adapters[0].layers[name].lora_B["default"].weight
    assert weight.untyped_storage().data_ptr() == module.up.untyped_storage().data_ptr()
    passed(base, stack, make_batch(tokens, [0], step_units=9))
    # A pass neither moves the gradients' memory nor leaves anything in the base.
    assert weight.grad.untyped_storage().data_ptr() == module.up.grad.untyped_storage().data_ptr()
    assert {name: id(module) for name, module in base.model.named_modules()} == originals
    stack.release()
    for adapter, state in zip(adapters, before, strict=True):
        assert all(p.is_contiguous() and p.grad is None for _, p in adapter.named_parameters())
        assert all(state[n].equal(p) for n, p in adapter.named_parameters())


def test_changing_one_adapter_leaves_the_others_bit_identical(detached, tokens):
    base, adapters = detached()
    stack = Stack(base, adapters)
    batch = make_batch(tokens, [0, 1, 2], step_units=40)
    for adapter in adapters:
        adapter.set_step(seed=0, step=0, micro_step=0)
    with torch.no_grad(), stack.mounted():
        before = stack.hidden(batch).chunk(3, dim=1)
    gradients = passed(base, stack, batch)
    with torch.no_grad():
        for _, parameter in adapters[1].named_parameters():
            parameter.fill_(float("nan"))
        with stack.mounted():
            after = stack.hidden(batch).chunk(3, dim=1)
    assert after[1].isnan().all()
    assert before[0].equal(after[0])
    assert before[2].equal(after[2])
    poisoned = passed(base, stack, batch)
    for index in (0, 2):
        assert all(gradients[index][n].equal(poisoned[index][n]) for n in gradients[index])


def test_documents_are_given_again_and_again():
    boundaries = torch.tensor([0, 3, 7, 9], dtype=torch.int32)
    laid = lay_boundaries(boundaries, 3)
    assert laid.tolist() == [0, 3, 7, 9, 12, 16, 18, 21, 25, 27]
    assert laid.dtype == torch.int32


def test_each_copy_continues_segments_of_its_own():
    parents = torch.tensor([-1, 0, 0, -1], dtype=torch.int32)
    laid = lay_parents(parents, 3)
    assert laid.tolist() == [-1, 0, 0, -1, -1, 4, 4, -1, -1, 8, 8, -1]
    assert laid.dtype == torch.int32


def test_pairs_train_jointly_as_alone(detached):
    """Branches of every copy see the prompt of their own copy."""
    base, adapters = detached()
    base.set_checkpointing(False)
    batch = make_batch(as_token_set(pair_documents()), [0, 1, 3], step_units=40)
    assert batch.parents is not None
    for adapter in adapters:
        adapter.set_step(seed=3, step=1, micro_step=0)
    alone = []
    for adapter in adapters:
        with adapter.mounted():
            torch.autograd.backward(Policy(base, adapter).label_nll(batch) / batch.step_units)
        alone.append({name: p.grad for name, p in adapter.named_parameters()})
    together = passed(base, Stack(base, adapters), batch)
    for ours, theirs in zip(together, alone, strict=True):
        for name, gradient in theirs.items():
            assert gradient.abs().max() > 0, name
            assert_same(ours[name], gradient)


def test_what_no_adapter_touches_is_computed_once(detached, tokens):
    """Layers below the first adapted one see the batch as it is, those from it on K copies."""
    base, adapters = detached([Lora(rank=2, layers=1), Lora(rank=4, layers=1, dropout=0.1)])
    batch = make_batch(tokens, [0, 1, 2], step_units=40)
    seen = []
    for layer in base.layers:
        layer.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    passed(base, Stack(base, adapters), batch)
    below = len(base.layers) - 1
    assert below > 0
    assert seen == [batch.num_tokens] * below + [2 * batch.num_tokens]
    hooks = [hook for layer in base.layers for hook in layer._forward_pre_hooks]
    assert hooks == []  # nothing stays behind


def test_only_some_pass_where_only_some_are_asked(detached, tokens):
    base, adapters = detached()
    stack = Stack(base, adapters)
    batch = make_batch(tokens, [0, 1], step_units=40)
    with torch.no_grad(), stack.mounted(), base.evaluating():
        whole = stack.hidden(batch).chunk(3, dim=1)
        with stack.only([2, 0]):
            some = stack.hidden(batch).chunk(2, dim=1)
        again = stack.hidden(batch)
    assert_same(some[0], whole[2])
    assert_same(some[1], whole[0])
    assert again.equal(torch.cat(whole, dim=1))


@pytest.mark.parametrize(
    ("kind", "layers"), [*((kind, None) for kind in TRANSFORMERS), ("qwen2", 1), ("gemma3", 1)]
)
def test_the_probe_passes_on_other_architectures(make_base, kind, layers):
    base = make_base(kind)
    adapters = []
    every = Lora(rank=2, targets="all-linear", layers=layers)
    for lora in (every, Lora(rank=4, targets="attn", layers=layers)):
        adapters.append(attach(base, lora, seed=0, dtype=torch.float32))
        adapters[-1].detach()
        require_stackable(adapters[-1])
    before = [adapter.state_dict() for adapter in adapters]
    assert "bit-identical" in check_apart(base, adapters, autocast=no_autocast)
    for adapter, state in zip(adapters, before, strict=True):
        assert all(state[n].equal(p) for n, p in adapter.named_parameters())


def test_the_probe_finds_branches_that_see_each_other(detached, monkeypatch):
    base, adapters = detached()
    assert "bit-identical" in check_apart(base, adapters, autocast=no_autocast, branches=True)

    def leaky(parents, times):
        return lay_parents(torch.where(parents < 0, parents, torch.tensor([-1, -1, 1, 2])), times)

    monkeypatch.setattr(trunk, "lay_parents", lambda p, times: leaky(p, times).to(p.dtype))
    with pytest.raises(LeakError, match="see each other"):
        check_apart(base, adapters, autocast=no_autocast, branches=True)


def test_the_probe_finds_documents_that_see_each_other(detached, monkeypatch):
    base, adapters = detached()

    def leaky(boundaries, times):
        laid = lay_boundaries(boundaries, times)
        return torch.stack([laid[0], laid[-1]])

    monkeypatch.setattr(trunk, "lay_boundaries", leaky)
    with pytest.raises(LeakError, match="documents of one packed row see each other"):
        check_apart(base, adapters, autocast=no_autocast)


def test_the_probe_finds_adapters_that_see_each_other(detached, monkeypatch):
    base, adapters = detached()
    right = JointLinear.forward

    def mixed(self, x):
        own = self.down
        self.down = own + 1e-3 * own.roll(1, 0)
        try:
            return right(self, x)
        finally:
            self.down = own

    monkeypatch.setattr(joint_linear.JointLinear, "forward", mixed)
    with pytest.raises(LeakError, match="adapters see each other"):
        check_apart(base, adapters, autocast=no_autocast)


def test_the_probe_finds_an_adapter_that_is_not_itself(detached, monkeypatch):
    base, adapters = detached()
    monkeypatch.setattr(
        joint_probe,
        "_alone",
        lambda base, adapter, batch: torch.randn(1, 64, base.config.hidden_size),
    )
    with pytest.raises(LeakError, match="apart from itself alone"):
        check_apart(base, adapters, autocast=no_autocast)


def test_only_lora_on_linear_layers_is_stacked(detached):
    _, adapters = detached([Lora(rank=2), Lora(rank=2, dora=True)])
    require_stackable(adapters[0])
    with pytest.raises(ConfigError, match=r"Linear under a variant of LoRA.*trains jointly"):
        require_stackable(adapters[1])
