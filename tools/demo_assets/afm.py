"""Pretrain the miniature of Apple's model, `apple/assets`.

Run as: PYTHONPATH=tools python -m demo_assets.afm

A toolkit's assets folder, made from nothing but the recipe below, in a minute or two on two cores:

    FOLDER/base-model.pt            weights under tamm's names, adapters included (b = 0): matrices
                                    in bfloat16, norms and the quantisers' ranges in float32
           base-model-config.json   tamm's own JSON, from which the model is created
           tokenizer.model          SentencePiece in the layout of Apple's
           recipe.json              what was made, and how well it predicts held-out text

Everything that sets the architecture apart is there: the last layers reuse keys and values, groups
of heads share them, queries and keys are normalised, keys and values are fake-quantised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_assets import PACKAGE
from demo_assets.chats import Message as Turn
from demo_assets.corpus import documents
from demo_assets.course import Course, learn, optimizers, shown_steps
from demo_assets.tokenizer import train_afm_tokenizer
from graftlab.apple.tokenizer import AFMTokenizer
from graftlab.errors import ModelError
from graftlab.types import Message

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

ASSETS = PACKAGE / "apple" / "assets"
_DOCUMENTS = 200  # made and encoded at a time


@dataclass(kw_only=True, slots=True)
class MiniRecipe(Course):
    """Everything the miniature is a function of, besides library versions and the machine."""

    context: int = 1024
    """Longest sequence; the last part of the training uses rows of this length."""
    step_tokens: int = 1024
    """Tokens per optimizer step; in so short a time many small steps learn more."""
    matrix_lr: float = 1e-2
    """Peak learning rate of the layers' matrices (Muon)."""
    warmup_steps: int = 40
    """Linear warm-up; then constant."""
    steps: int = 480
    """Optimizer steps; every token is read once."""
    vocabulary: int = 2048
    """SentencePiece pieces, special ones included."""
    sample_documents: int = 2000
    """Documents that the tokenizer is trained on."""
    hidden: int = 128
    """Width of the residual stream; the feed-forward's is 3.25 times that."""
    layers: int = 6
    """Transformer layers in all."""
    kv_reuse_layers: int = 2
    """The last of them, which use the keys and values of the last regular one."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 2
    """Key and value heads, shared by groups of query heads (arXiv 2305.13245)."""
    rank: int = 32
    """Rank of the adapters that the architecture brings."""
    alpha: float = 16
    """Their alpha: the scale is alpha / rank."""
    embedding_std: float = 0.04
    """Initial size of the embeddings' values."""
    heldout_tokens: int = 8192
    """Tokens of the held-out text."""


def model_config(recipe: MiniRecipe, *, adapters: bool) -> Any:
    """tamm's configuration of the miniature. Raises ModelError where tamm is not installed."""
    try:
        from tamm.adapters import LoRAModelAdapter
        from tamm.ao.arch_optimizers import KVQuantArchOptimizer
        from tamm.models.afm_text import AFMTextV7
    except ImportError:
        raise ModelError('model=afm-mini needs tamm: pip install "graftlab[apple]".') from None
    lora = {"base_adapter": LoRAModelAdapter(rank=recipe.rank, alpha=recipe.alpha)}
    return AFMTextV7.Config(
        vocab_size=recipe.vocabulary,
        hidden_dim=recipe.hidden,
        num_layers=recipe.layers,
        num_kv_reuse_layers=recipe.kv_reuse_layers,
        num_heads=recipe.heads,
        num_kv_heads=recipe.kv_heads,
        arch_optimizers={"kv_quant": KVQuantArchOptimizer()},
        **({"adapters": lora} if adapters else {}),
    )


def build_assets(
    folder: Path,
    recipe: MiniRecipe | None = None,
    *,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> dict[str, object]:
    """Make the folder drawn above; returns what recipe.json says.

    `on_step(step, steps, loss)` follows every step. The global random state is left as it was.
    """
    import torch
    from tamm.utils import json as tamm_json

    recipe = recipe or MiniRecipe()
    config = model_config(recipe, adapters=True)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.model"
    file.write_bytes(
        train_afm_tokenizer(
            recipe.seed, vocabulary=recipe.vocabulary, sample=recipe.sample_documents
        )
    )
    tokenizer = AFMTokenizer(file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        whole = config.create_model().eval()
        model, train_loss = _pretrained(recipe, tokenizer, on_step)
    _take_over(whole, model)
    state = _as_stored(whole)
    torch.save(state, folder / "base-model.pt")
    whole.load_state_dict(state)  # what is judged below is what was written
    with (folder / "base-model-config.json").open("w", encoding="utf-8") as out:
        tamm_json.dump(config, out, indent=2)
    facts: dict[str, object] = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in whole.parameters()),
        "train_loss": round(train_loss, 4),
        "heldout_loss": round(heldout_loss(whole, tokenizer, recipe), 4),
    }
    (folder / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def _pretrained(
    recipe: MiniRecipe, tokenizer: AFMTokenizer, on_step: Callable[[int, int, float], None]
) -> tuple[Any, float]:
    """A model without adapters after its course, in eval mode; and the last training loss.

    The quantisers of keys and values learn their ranges meanwhile, as they do in train mode only.
    """
    import torch

    model = model_config(recipe, adapters=False).create_model()
    with torch.no_grad():
        weight = model.output_transform.weight
        weight.mul_(recipe.embedding_std / weight.std())
    # One step more: the part in short rows leaves its last one out.
    count = (recipe.steps + 1) * recipe.step_tokens + 1
    loss = learn(
        model,
        token_stream(tokenizer, recipe, "train", count),
        recipe,
        loss=lambda rows: mean_loss(model, rows),
        optimizers=optimizers(model, model.layers.parameters(), recipe),
        on_step=on_step,
    )
    return model, loss


def _as_stored(model: nn.Module) -> dict[str, Tensor]:
    """Its state with matrices in bf16; a tensor under two names stays one."""
    import torch

    kept: dict[int, Tensor] = {}
    return {
        name: kept.setdefault(
            tensor.data_ptr(), tensor.to(torch.bfloat16) if tensor.ndim > 1 else tensor
        )
        for name, tensor in model.state_dict().items()
    }


def heldout_loss(model: Any, tokenizer: AFMTokenizer, recipe: MiniRecipe) -> float:
    """Nats per token of held-out text, in rows of the whole context."""
    import torch

    count = max(1, recipe.heldout_tokens // recipe.context)
    stream = token_stream(tokenizer, recipe, "heldout", count * recipe.context + 1)
    flat, length = torch.from_numpy(stream).long(), recipe.context
    rows = torch.stack([flat[k * length : (k + 1) * length + 1] for k in range(count)])
    with torch.no_grad():
        return float(mean_loss(model, rows))


def token_stream(tokenizer: AFMTokenizer, recipe: MiniRecipe, split: str, count: int) -> np.ndarray:
    """The first `count` tokens of a split, each document led in by the end of text, (count,)."""
    import numpy as np

    def chat(turns: Iterable[Turn]) -> str:
        messages = [Message(turn["role"], turn["content"]) for turn in turns]
        return tokenizer.render_text(messages, generation_prompt=False)

    end = tokenizer.stop_ids[-1]
    ids: list[int] = []
    made = documents(recipe.seed, split, 1_000_000, chat=chat)
    while len(ids) < count:
        texts = [text for text, _ in zip(made, range(_DOCUMENTS), strict=False)]
        for encoded in tokenizer.encode_text(texts):
            ids += encoded if encoded[0] == end else [end, *encoded]
    return np.array(ids[:count], np.int32)


def mean_loss(model: Any, rows: Tensor) -> Tensor:
    """Cross-entropy in nats per token; rows (B, T + 1)."""
    import torch.nn.functional as F

    hidden = model(rows[:, :-1], mode="SKIP_OUTPUT_LAYER").last_hidden_state
    logits = hidden @ model.output_transform.weight.T
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def _take_over(whole: nn.Module, trained: nn.Module) -> None:
    """Copy the trained weights into the model with adapters, where they lie under `.wrapped.`."""
    known = trained.state_dict()
    state = {
        name: known.pop(name.replace(".wrapped.", "."), value)
        for name, value in whole.state_dict().items()
    }
    assert not known, f"weights without a place: {sorted(known)}"
    whole.load_state_dict(state)


def main() -> None:
    """Make the shipped miniature, with a progress bar and its loss curve."""
    from graftlab.models.allocator import tune_allocator

    tune_allocator()
    with shown_steps() as on_step:
        facts = build_assets(ASSETS, on_step=on_step)
    print(f"{facts['parameters']:,} parameters, held-out loss {facts['heldout_loss']} in {ASSETS}")


if __name__ == "__main__":
    main()
