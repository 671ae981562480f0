"""What all contestants train: a random 21.7M Qwen2 and chats of chosen lengths, made on the spot.

Every letter is one token, so a chat of n tokens is a chat of about n letters, and all contestants
get the same documents from the same files, in the same rows.
"""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftlab.types import Tokens

MAX_LENGTH = 4095
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATE_TOKENS = 30
REPLY_TOKENS = 144
PROMPT_TOKENS = 876
SPREAD = 0.371
"""Standard deviation of the logarithm of the seeds' lengths."""

SHAPE = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "bos_token_id": None,
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 16


def chat_lengths(draw: random.Random) -> int:
    """About 1000 + 144 tokens: three to a row of 4095."""
    return int(draw.gauss(1144, 80))


def seed_lengths(draw: random.Random) -> int:
    """The seeds' profile: median 1012, third quartile 1300, longest 3300 tokens."""
    return min(3300, max(200, int(draw.lognormvariate(6.92, SPREAD))))


def short_lengths(draw: random.Random) -> int:
    """Short questions of uneven length: median 330 tokens."""
    return min(900, max(200, int(draw.lognormvariate(5.8, 0.3))))


PROFILES: dict[str, Callable[[random.Random], int]] = {
    "chats": chat_lengths,
    "seeds": seed_lengths,
    "short": short_lengths,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A base folder, and files of chats or of pairs of answers, written by `make` or `make_pairs`.

    One is there only after its own."""

    base: Path
    chats: Path
    pairs: Path

    @classmethod
    def at(cls, folder: Path) -> Workload:
        return cls(folder / "base", folder / "chats.jsonl", folder / "pairs.jsonl")

    def documents(self) -> list[Tokens]:
        """The chats as graftlab encodes them: labels shifted, only replies labelled."""
        from graftlab.data.jsonl import JsonlData
        from graftlab.text.encode import encode
        from graftlab.text.load import load_tokenizer

        tokenizer = load_tokenizer(self.base)
        data = JsonlData(train=str(self.chats), valid_fraction=0.0).load()
        tokens = encode(data.train, tokenizer, max_length=MAX_LENGTH, over_limit="error")
        return [tokens[index] for index in range(len(tokens))]

    def rows(self) -> list[list[Tokens]]:
        """The documents in graftlab's rows, shuffled: planned rows come longest first."""
        from graftlab.packing.plan import Packing, plan_rows

        documents = self.documents()
        packing = Packing(strategy="best-fit", max_length=MAX_LENGTH)
        rows = plan_rows([len(document) for document in documents], packing)
        random.Random(0).shuffle(rows)
        return [[documents[index] for index in row] for row in rows]


def make(
    folder: Path, *, profile: str, documents: int, shape: Mapping[str, Any] = SHAPE
) -> Workload:
    """Write base and chats into `folder`; the same arguments write the same files."""
    workload = _with_base(folder, shape)
    draw = random.Random(0)
    with workload.chats.open("w", encoding="utf-8") as file:
        for _ in range(documents):
            length = PROFILES[profile](draw)
            turns = [
                ("user", _letters(draw, length - REPLY_TOKENS - TEMPLATE_TOKENS)),
                ("assistant", _letters(draw, REPLY_TOKENS)),
            ]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    return workload


def make_pairs(folder: Path, *, pairs: int, shape: Mapping[str, Any] = SHAPE) -> Workload:
    """Write base and pairs into `folder`: prompts of 876 tokens, answers of 144, on average.

    Both spread as the seeds' lengths do. A prompt is at most as long as lets both answers lie in a
    row with a copy of it each.
    """
    workload = _with_base(folder, shape)
    draw = random.Random(0)

    def length(mean: int, *, most: int) -> int:
        return min(most, int(draw.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD)))

    with workload.pairs.open("w", encoding="utf-8") as file:
        for _ in range(pairs):
            prompt = length(PROMPT_TOKENS, most=MAX_LENGTH // 2 - 3 * REPLY_TOKENS)
            row = {"prompt": _turn("user", _letters(draw, prompt - TEMPLATE_TOKENS))}
            for side in ("chosen", "rejected"):
                answer = length(REPLY_TOKENS, most=2 * REPLY_TOKENS)
                row[side] = _turn("assistant", _letters(draw, answer))
            file.write(json.dumps(row) + "\n")
    return workload


def _turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def _with_base(folder: Path, shape: Mapping[str, Any]) -> Workload:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    workload = Workload.at(folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**shape)).save_pretrained(workload.base)
    _save_tokenizer(workload.base)
    return workload


def _letters(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.ascii_letters, k=count))


def _save_tokenizer(folder: Path) -> None:
    """A byte-level BPE without merges, so that a letter is a token, with ChatML."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*SPECIALS, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=SPECIALS[2],
        pad_token=SPECIALS[0],
        extra_special_tokens=[SPECIALS[1]],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
