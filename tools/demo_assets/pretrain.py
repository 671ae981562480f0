"""Pretrain the tiny base and write `assets/tiny`.

Run as: PYTHONPATH=tools python -m demo_assets.pretrain

Text, tokenizer and weights are made from nothing but the recipe below, in about a quarter of an
hour on two CPU cores. `base.json` beside the weights says what was made: recipe, hashes, loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from demo_assets import SHIPPED
from demo_assets.corpus import END_OF_TEXT, TURN_END, digest, documents
from demo_assets.course import Course, learn, optimizers, shown_steps
from demo_assets.induction import wire
from demo_assets.tokenizer import train_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import sentencepiece
    import torch
    from transformers import Qwen2ForCausalLM

ASSETS = SHIPPED / "tiny"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


@dataclass(kw_only=True, slots=True)
class Recipe(Course):
    """Everything the tiny base is a function of (besides library versions and the machine)."""

    documents: int = 33_000
    """Documents of the training split; each is read once."""
    heldout_documents: int = 120
    """Documents of the held-out split."""
    vocabulary: int = 4096
    """SentencePiece pieces, special ones included."""
    hidden: int = 192
    """Width of the residual stream."""
    feed_forward: int = 512
    """Inner width of the gated MLP."""
    layers: int = 6
    """Decoder layers."""
    heads: int = 4
    """Query heads."""
    key_value_heads: int = 2
    """Key and value heads, shared by groups of query heads (arXiv 2305.13245)."""
    head_dim: int = 64
    """Width of a head; wide heads find a token among hundreds."""
    rope_theta: float = 1e6
    """Base of the rotary angles; at 1e4 tokens match over short distances only."""
    wired: bool = True
    """Copying set by hand in the first layers (induction.py), or all attention trained."""
    embedding_std: float = 0.04
    """Initial size of the embeddings' values."""


def build_model(recipe: Recipe, *, end_of_text: int, end_of_turn: int) -> Qwen2ForCausalLM:
    """A fresh Qwen2-shaped model, initial weights a function of the recipe's seed."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        head_dim=recipe.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_of_turn,
        pad_token_id=end_of_text,
        initializer_range=0.02,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(recipe.embedding_std / config.initializer_range)
    if recipe.wired:
        wire(model, generator=torch.Generator().manual_seed(recipe.seed))
    model.generation_config.eos_token_id = [end_of_turn, end_of_text]
    return model


def encode_stream(
    tokenizer: sentencepiece.SentencePieceProcessor, recipe: Recipe, split: str
) -> tuple[np.ndarray, str]:
    """All tokens of a split, documents ended by <|endoftext|>, (tokens,) int32; and its digest."""
    import numpy as np

    count = recipe.documents if split == "train" else recipe.heldout_documents
    texts = list(documents(recipe.seed, split, count))
    end = tokenizer.piece_to_id(END_OF_TEXT)
    encoded = tokenizer.encode(texts, num_threads=2)
    return np.concatenate([np.array([*ids, end], dtype=np.int32) for ids in encoded]), digest(texts)


def mean_loss(model: Qwen2ForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats per token; rows (B, T + 1)."""
    import torch.nn.functional as F

    hidden = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden).flatten(0, 1)
    return F.cross_entropy(logits.float(), rows[:, 1:].flatten())


def heldout_loss(model: Qwen2ForCausalLM, stream: np.ndarray, *, length: int) -> float:
    """Mean loss over the stream cut into rows of `length`; a shorter rest is left out."""
    import torch

    count = (len(stream) - 1) // length
    total = 0.0
    with torch.no_grad():
        for index in range(count):
            row = torch.from_numpy(stream[index * length : (index + 1) * length + 1]).long()
            total += float(mean_loss(model, row[None]))
    return total / count


def train(
    model: Qwen2ForCausalLM,
    stream: np.ndarray,
    recipe: Recipe,
    *,
    on_step: Callable[[int, int, float], None],
) -> float:
    """The stream once, followed by `on_step(step, steps, loss)`; the mean of the last losses."""
    return learn(
        model,
        stream,
        recipe,
        loss=partial(mean_loss, model),
        optimizers=optimizers(model, model.model.layers.parameters(), recipe),
        on_step=on_step,
    )


def make_base(
    recipe: Recipe, folder: Path, *, on_step: Callable[[int, int, float], None]
) -> dict[str, object]:
    """The whole recipe: text, tokenizer, weights, `base.json`. Returns what base.json says."""
    import sentencepiece
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    pieces = train_tokenizer(recipe.seed, vocabulary=recipe.vocabulary)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    stream, corpus_digest = encode_stream(tokenizer, recipe, "train")
    heldout, heldout_digest = encode_stream(tokenizer, recipe, "heldout")
    model = build_model(
        recipe,
        end_of_text=tokenizer.piece_to_id(END_OF_TEXT),
        end_of_turn=tokenizer.piece_to_id(TURN_END),
    )
    last_loss = train(model, stream, recipe, on_step=on_step)

    model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner only; it is to be shipped
    loss = heldout_loss(model.float(), heldout, length=recipe.context)
    (folder / "tokenizer.model").write_bytes(pieces)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    facts: dict[str, object] = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "corpus": {"tokens": len(stream), "sha256": corpus_digest},
        "heldout": {"tokens": len(heldout), "sha256": heldout_digest},
        "tokenizer_sha256": hashlib.sha256(pieces).hexdigest(),
        "train_loss": round(last_loss, 4),
        "heldout_loss": round(loss, 4),
    }
    (folder / "base.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def main() -> None:
    """Make the shipped base, with a progress bar and its loss curve."""
    from graftlab.models.allocator import tune_allocator

    tune_allocator()
    with shown_steps() as on_step:
        facts = make_base(Recipe(), ASSETS, on_step=on_step)
    print(f"{facts['parameters']:,} parameters, held-out loss {facts['heldout_loss']} in {ASSETS}")


if __name__ == "__main__":
    main()
