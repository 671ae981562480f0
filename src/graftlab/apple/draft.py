"""A draft of Apple's kind: the toolkit's own where its files are there, else a fresh small one.

The toolkit's (draft-model.pt) has 48.8M parameters for a base of 3.18B. A fresh one has an eighth
of the base's width and a quarter of its layers, which at those sizes is about as much; its layers
reuse keys and values in the base's proportion, and nothing of it is quantised.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftlab.apple.files import CONFIG, WEIGHTS, find_assets, read_config, read_weights
from graftlab.errors import ConfigError
from graftlab.models.fingerprint import file_digest

DRAFT, DRAFT_CONFIG = "draft-model.pt", "draft-model-config.json"
WIDTH, DEPTH = 8, 4
"""By default an eighth as wide and a quarter as deep."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a fresh draft is made of."""

    hidden: int
    layers: int
    reused: int
    heads: int
    key_heads: int


def toolkit_draft(
    folder: Path, *, layers: int | None, hidden: int | None
) -> tuple[Path, Path] | None:
    """Weights and config of the toolkit's own draft, if it is there and no size is asked for."""
    files = folder / DRAFT, folder / DRAFT_CONFIG
    own = layers is None and hidden is None and all(file.is_file() for file in files)
    return files if own else None


def sizes_of(config: Any, *, layers: int | None, hidden: int | None) -> Sizes:
    """Sizes for a base of this tamm config. Raises ConfigError for a width that has no heads."""
    head = config.hidden_dim // config.num_heads
    width = hidden or max(head, round(config.hidden_dim / WIDTH / head) * head)
    own = min(head, width)
    if width % own or own % 2:
        raise ConfigError(
            f"model.hidden={width} cannot be split into heads of {head}: give a multiple of it."
        )
    depth = layers or max(1, round(config.num_layers / DEPTH))
    reused = min(depth - 1, round(depth * config.num_kv_reuse_layers / config.num_layers))
    heads = width // own
    shared = max(1, config.num_heads // (config.num_kv_heads or config.num_heads))
    key_heads = heads // shared if heads % shared == 0 else 1
    return Sizes(width, depth, reused, heads, key_heads)


def plan(assets: Path, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
    """What `build` would write, in plain content. Raises ModelError or ConfigError."""
    if (given := toolkit_draft(assets, layers=layers, hidden=hidden)) is not None:
        return {"toolkit": [file_digest(file) for file in given]}
    config = read_config(find_assets(assets).config)
    sizes = asdict(sizes_of(config, layers=layers, hidden=hidden))
    return {"afm": sizes, "vocabulary": int(config.vocab_size)}


def build(
    assets: Path,
    folder: Path,
    *,
    layers: int | None,
    hidden: int | None,
    seed: int,
    embedding: str,
) -> None:
    """A draft for the base in `assets`, into `folder`, but for its tokenizer.

    The toolkit's own is taken unless a size is asked for. Raises ModelError or ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (given := toolkit_draft(assets, layers=layers, hidden=hidden)) is not None:
        shutil.copyfile(given[0], folder / WEIGHTS)
        shutil.copyfile(given[1], folder / CONFIG)
        return
    import tamm.utils.json
    import torch
    from tamm.models.afm_text import AFMTextV7

    from graftlab.models.project import project

    found = find_assets(assets)
    base = read_config(found.config)
    sizes = sizes_of(base, layers=layers, hidden=hidden)
    config = AFMTextV7.Config(
        vocab_size=base.vocab_size,
        hidden_dim=sizes.hidden,
        num_layers=sizes.layers,
        num_kv_reuse_layers=sizes.reused,
        num_heads=sizes.heads,
        num_kv_heads=sizes.key_heads,
        hidden_dim_scale_factor=base.hidden_dim_scale_factor,
        rope_theta=base.rope_theta,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.create_model()
    if embedding == "projected":
        project(model.embedding.weight, read_weights(found.weights)["embedding.weight"])
    torch.save(model.state_dict(), folder / WEIGHTS)
    text = tamm.utils.json.dumps(config, indent=2)
    (folder / CONFIG).write_text(text, encoding="utf-8")
