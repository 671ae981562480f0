"""A miniature of Apple's on-device model, laid out like the assets folder of Apple's toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 400


def config(**changes: Any) -> Any:
    """tamm's AFMTextV7, small: two layers of its own keys and values, two that reuse them."""
    from tamm.adapters import LoRAModelAdapter
    from tamm.ao.arch_optimizers import KVQuantArchOptimizer
    from tamm.models.afm_text import AFMTextV7

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_dim": 64,
        "num_layers": 4,
        "num_kv_reuse_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "adapters": {"base_adapter": LoRAModelAdapter(rank=4, alpha=2)},
        "arch_optimizers": {"kv_quant": KVQuantArchOptimizer()},
    }
    return AFMTextV7.Config(**{**sizes, **changes})


def make_assets(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """`folder` with base-model.pt, base-model-config.json and tokenizer.model."""
    import tamm.utils.json
    import torch

    from demo_assets.tokenizer import train_tokenizer

    folder.mkdir(parents=True)
    made = config(**changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = made.create_model()
        _calibrate(model, made.vocab_size)
    torch.save(model.state_dict(), folder / "base-model.pt")
    text = tamm.utils.json.dumps(made, indent=2)
    (folder / "base-model-config.json").write_text(text, encoding="utf-8")
    pieces = train_tokenizer(0, vocabulary=VOCABULARY, sample=60)
    (folder / "tokenizer.model").write_bytes(pieces)
    return folder


def _calibrate(model: Any, vocabulary: int) -> None:
    """Let the KV quantisers see keys and values, as those of a finished model have."""
    import torch

    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randint(1, vocabulary, (2, 64)))
    model.eval()
