"""Exports for mlx-lm: written and read back, and their logits compared with ours."""

from __future__ import annotations

from pathlib import Path

import torch

from afm_adapters import logits
from graftlab.exports.mlx import MLX
from graftlab.exports.source import load
from tolerance import assert_same

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def exported(run: Path, folder: Path, bits: int | None = None) -> Path:
    folder.mkdir()
    target, adapter = MLX(with_base=True, bits=bits), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    assert len(target.verify(adapter, folder)) == 2
    return folder


def check_logits(run: Path, folder: Path, *, with_mlx_lms_own: bool = False) -> None:
    import mlx.core as mx
    import numpy as np
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    from graftlab.exports.mlx import load_adapter

    wanted = logits(run, IDS).numpy()
    model, _ = load_model(folder / "base")
    alone = np.array(model(mx.array(IDS.numpy())))
    (load_adapters if with_mlx_lms_own else load_adapter)(model, str(folder))
    answer = np.array(model(mx.array(IDS.numpy())))
    assert_same(torch.from_numpy(answer), torch.from_numpy(wanted))
    assert np.abs(alone - wanted).max() > 0.01, "the adapter counts"
