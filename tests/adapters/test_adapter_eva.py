"""EVA: A from what the inputs vary in, B zero, so that the base stays exact."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graftlab.adapters import eva
from graftlab.adapters.attach import attach
from graftlab.adapters.eva import fit_to_data
from graftlab.adapters.lora import Lora
from graftlab.errors import ConfigError
from graftlab.models.base import Base
from graftlab.types import IGNORE, Batch
from miniatures import flat_batch

MakeBase = Callable[..., Base]
LORA = Lora(rank=4, init="eva", dora=True, rank_pattern={"k_proj": 2})


def attached(base: Base, lora: Lora = LORA) -> Any:
    return attach(base, lora, seed=0, dtype=torch.float32)


def batches(count: int) -> list[Batch]:
    return [flat_batch([40, 30], seed=seed) for seed in range(count)]


def fit(adapter: Any, read: list[Batch]) -> str:
    return fit_to_data(adapter, read, autocast=nullcontext)


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return base.logits(base.hidden(flat_batch([12, 9]))[0])


@torch.no_grad()
def inputs_of(base: Any, name: str, read: list[Batch]) -> torch.Tensor:
    """What a module of the bare base reads where a label is."""
    kept = []
    module = base.model.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0][0]))
    for batch in read:
        base.hidden(batch)
    handle.remove()
    marks = torch.cat([batch.labels[0] != IGNORE for batch in read])
    return torch.cat(kept)[marks]


def test_the_base_stays_exact_and_the_seed_does_not_matter(make_base: MakeBase) -> None:
    base = make_base()
    alone = logits(base)
    adapter = attached(base)
    before = adapter.state_dict()
    assert "of 14 modules" in fit(adapter, batches(3))
    assert torch.equal(logits(base), alone)
    after = adapter.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_A." in name}
    adapter.detach()
    other = attach(base, LORA, seed=9, dtype=torch.float32)
    fit(other, batches(3))
    assert all(torch.equal(after[name], t) for name, t in other.state_dict().items())


@pytest.mark.parametrize("count", [1, 4])
def test_a_spans_what_the_inputs_vary_in_most(make_base: MakeBase, count: int) -> None:
    base, read = make_base(), batches(count)
    adapter = attached(base, Lora(rank=4, init="eva", targets=["q_proj", "down_proj"]))
    fit(adapter, read)
    adapter.detach()
    for name, layer in adapter.layers.items():
        x = inputs_of(base, name, read)
        variance = torch.linalg.svdvals(x - x.mean(0)).square()
        lora_a = layer.lora_A["default"].weight.detach()
        kept = ((x - x.mean(0)) @ lora_a.T).square().sum()
        assert torch.allclose(lora_a @ lora_a.T, torch.eye(4), atol=1e-4)
        # Not exactly all: PEFT draws twice the directions, and takes batch after batch.
        assert kept >= 0.9 * variance[:4].sum()
        random = torch.linalg.qr(torch.randn(x.shape[1], 4)).Q
        assert kept > 1.5 * ((x - x.mean(0)) @ random).square().sum()


def test_no_more_batches_are_read_than_it_takes(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [flat_batch([60], seed=1)] * 20
    assert "at rest in 14 of 14 modules" in fit(attached(make_base()), same)
    monkeypatch.setattr(eva, "AT_REST", 2.0)  # never
    monkeypatch.setattr(eva, "MOST", 3)
    assert "from 3 batches, at rest in 0 of" in fit(attached(make_base()), same)


def test_data_too_small_for_the_rank_is_refused(make_base: MakeBase) -> None:
    with pytest.raises(ConfigError, match=r"lora\.init=eva: the data has fewer than 32 trained"):
        fit(attached(make_base(), Lora(rank=16, init="eva")), [flat_batch([30])])
    with pytest.raises(ConfigError, match="rank 80 of .* is more than its 64 inputs"):
        fit(attached(make_base(), Lora(rank=80, init="eva")), batches(2))


def test_a_run_draws_once_and_a_resumed_one_does_not(
    qwen2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from chats import chats
    from graftlab.models.hf import HFModel
    from graftlab.training.start import run
    from training_spec import small_spec

    chats(tmp_path / "train.jsonl", 9)
    chats(tmp_path / "valid.jsonl", 3)
    spec = replace(
        small_spec(tmp_path),
        model=HFModel(path=str(qwen2_folder)),
        lora=Lora(rank=2, init="eva"),
        run_dir=str(tmp_path / "run"),
        max_steps=4,
    )
    run(replace(spec, run_dir=str(tmp_path / "whole")))
    assert "lora.init=eva: A from" in capsys.readouterr().out
    run(replace(spec, max_minutes=1e-9))
    capsys.readouterr()
    run(replace(spec, resume="auto"))
    assert "lora.init=eva" not in capsys.readouterr().out
    ours, theirs = (tmp_path / name / "adapter" for name in ("run", "whole"))
    weights = "adapter_model.safetensors"
    assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()
