"""Pretrain the tiny base and write `assets/tiny`. Run as: python -m graftlab.demo.pretrain

Text, tokenizer and weights are made from nothing but the recipe below, in about a quarter of an
hour on two CPU cores. `base.json` beside the weights says what was made: recipe, hashes, loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.demo.corpus import END_OF_TEXT, TURN_END, digest, documents
from graftlab.demo.induction import wire
from graftlab.demo.tokenizer import train_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import sentencepiece
    import torch
    from transformers import Qwen2ForCausalLM

ASSETS = Path(__file__).parent.parent / "assets" / "tiny"
LAST_STEPS = 20  # the training loss that is reported is the mean over these

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


@dataclass(kw_only=True, slots=True)
class Recipe:
    """Everything the tiny base is a function of (besides library versions and the machine)."""

    seed: int = 0
    """Seed of the text and of the initial weights."""
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
    context: int = 2048
    """Longest sequence; the last part of the training uses rows of this length."""
    row_length: int = 512
    """Length of the rows in the first part of the text."""
    long_share: float = 0.2
    """Share of the tokens read in rows of `context`."""
    step_tokens: int = 4096
    """Tokens per optimizer step."""
    embedding_std: float = 0.04
    """Initial size of the embeddings' values."""
    matrix_lr: float = 6e-3
    """Peak learning rate of the layers' matrices (Muon); copying was worse at 0.015."""
    other_lr: float = 4e-3
    """Peak learning rate of embeddings, norms and biases (AdamW)."""
    warmup_steps: int = 20
    """Linear warm-up; then constant."""
    decay_share: float = 0.4
    """Share of the steps, at the end, in which the rates fall linearly to zero."""


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


def batches(stream: np.ndarray, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Rows (B, T + 1) of each step: short rows first, rows of the whole context last.

    Documents follow each other in a row and see each other, as usual in pretraining: so every
    position is trained though few documents are long.
    """
    import torch

    split = int(len(stream) * (1 - recipe.long_share)) // recipe.step_tokens * recipe.step_tokens
    for part, length in ((stream[:split], recipe.row_length), (stream[split:], recipe.context)):
        size = recipe.step_tokens
        for start in range(0, len(part) - size, size):
            flat = torch.from_numpy(part[start : start + size + 1]).long()
            yield torch.stack([flat[at : at + length + 1] for at in range(0, size, length)])


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


def rate_factor(step: int, *, steps: int, recipe: Recipe) -> float:
    """Warm-up, constant, linear decay to zero (arXiv 2404.06395)."""
    decay_steps = max(1, round(steps * recipe.decay_share))
    return min(1.0, (step + 1) / recipe.warmup_steps, (steps - step) / decay_steps)


def optimizers(model: Qwen2ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (arXiv 2502.16982) for the layers' matrices, AdamW for everything else."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    inner = {id(p) for p in model.model.layers.parameters() if p.ndim == 2}
    matrices = [p for p in trained if id(p) in inner]
    others = [p for p in trained if id(p) not in inner]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    model: Qwen2ForCausalLM,
    stream: np.ndarray,
    recipe: Recipe,
    *,
    on_step: Callable[[int, int, float], None],
) -> float:
    """The stream once, followed by `on_step(step, steps, loss)`; the mean of the last losses."""
    import torch

    steps = sum(1 for _ in batches(stream, recipe))
    chosen = optimizers(model, recipe)
    peaks = [group["lr"] for optimizer in chosen for group in optimizer.param_groups]
    losses: list[float] = []
    model.train()
    for step, rows in enumerate(batches(stream, recipe)):
        factor = rate_factor(step, steps=steps, recipe=recipe)
        groups = [group for optimizer in chosen for group in optimizer.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = mean_loss(model, rows)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        on_step(step + 1, steps, losses[-1])
    model.eval()
    tail = losses[-LAST_STEPS:]
    return sum(tail) / len(tail)


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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from graftlab.models.allocator import tune_allocator

    tune_allocator()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("text and tokenizer", total=None)

        def on_step(step: int, steps: int, loss: float) -> None:
            progress.update(task, completed=step, total=steps, description=f"loss {loss:.3f}")
            if step % max(1, steps // 40) == 0:
                progress.console.print(f"step {step:4d} of {steps}  loss {loss:.3f}")

        facts = make_base(Recipe(), ASSETS, on_step=on_step)
    print(f"{facts['parameters']:,} parameters, held-out loss {facts['heldout_loss']} in {ASSETS}")


if __name__ == "__main__":
    main()
