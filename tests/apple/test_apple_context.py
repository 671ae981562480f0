"""Apple's on-device model reads through its cache what it reads at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afm_assets import make_assets
from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.apple.model import AFMModel
from graftlab.models.probe import probe_batch
from reading import assert_padding_is_not_read, close, tokens

LENGTH = 300
"""Tokens of a row."""


def whole(base, row: Tensor) -> Tensor:
    """Logits (T, V) of a row (T,) as it is trained: packed, without any cache."""
    with torch.no_grad(), base.evaluating():
        return base.logits(base.hidden(probe_batch([row]))[0]).float()


@pytest.fixture(scope="module", params=["quantizer", "quantizing cacher", "no reuse"])
def base(request, tmp_path_factory):
    """With keys and values quantised in either way, and with no layers that reuse them.

    In fp64: where a rounding of fp32 carries a value over the edge of a quantiser's step, the
    logits jump by a thousand roundings (measured: 6e-4, elsewhere on every processor).
    """
    from tamm.ao.arch_optimizers import KVQuantArchOptimizer

    changes = {
        "quantizer": {},
        "quantizing cacher": {
            "arch_optimizers": {
                "kv_quant": KVQuantArchOptimizer(skip_quantize_for_first_token=True)
            }
        },
        "no reuse": {"num_kv_reuse_layers": 0},
    }[request.param]
    folder = make_assets(tmp_path_factory.mktemp("afm") / "assets", **changes)
    spec = AFMModel(path=str(folder))
    base = spec.load(dtype=torch.float64, device=torch.device("cpu"))
    adapter = attach(base, Lora(rank=4, alpha=2, dropout=0.5), seed=0, dtype=torch.float64)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.05)
    base.set_checkpointing(True)  # as sampling in the middle of training finds it
    return base


def test_reading_in_pieces_is_reading_at_once(base):
    ids = tokens(2, LENGTH)
    with base.context() as context:
        pieces = [context.feed(ids[:, :7]), context.feed(ids[:, 7 : LENGTH - 3])]
        pieces += [context.feed(ids[:, at : at + 1]) for at in range(LENGTH - 3, LENGTH)]
        assert context.length == LENGTH
    read = torch.cat(pieces, dim=1)
    for row in range(2):
        expected = whole(base, ids[row])
        assert expected.std() > 0.1
        close(read[row], expected, dtype=torch.float64)


def test_greedy_through_the_cache_is_greedy_without(base):
    prompt = tokens(1, 9)
    plain = prompt[0]
    for _ in range(12):
        plain = torch.cat([plain, whole(base, plain)[-1:].argmax(-1)])
    with base.context() as context:
        ids, drawn = prompt, []
        for _ in range(12):
            ids = context.feed(ids, last=1)[:, -1:].argmax(-1)
            drawn.append(int(ids))
    assert drawn == plain[9:].tolist()
    assert len(set(drawn)) > 1


def test_what_is_cropped_was_never_read(base):
    ids, others = tokens(1, 20), tokens(1, 8, seed=1)
    with base.context(rewind=True) as context:
        context.feed(ids[:, :12])
        context.feed(others)
        context.crop(12)
        again = context.feed(ids[:, 12:])
        assert context.length == 20
    close(again[0], whole(base, ids[0])[12:], dtype=torch.float64)


def test_a_padded_row_reads_as_alone(base):
    lengths = (16, 5, 11)
    assert_padding_is_not_read(
        base, lengths, whole=lambda row: whole(base, row), dtype=torch.float64
    )


def test_the_model_is_as_before_once_it_closes(base):
    assert base.model.training
    with base.context() as context:
        assert not base.model.training
        assert context.limit == 4096
        assert not context.feed(tokens(1, 3)).requires_grad
    assert base.model.training


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_in_bf16(make_afm, precision):
    base, ids = make_afm(torch.bfloat16), tokens(1, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "mixed"):
        with base.context() as context:
            read = torch.cat([context.feed(ids[:, :30]), context.feed(ids[:, 30:])], dim=1)
        expected = whole(base, ids[0])
    assert read.dtype == torch.float32
    assert (read[0] - expected).norm() < 0.05 * expected.norm()
