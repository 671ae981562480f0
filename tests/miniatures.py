"""Miniature Hugging Face model folders: every architecture of the tests, in half a megabyte.

Weights are random but large enough that logits, softcaps and sliding windows matter; each folder is
what `save_pretrained` writes: config, safetensors, a byte-level BPE tokenizer with ChatML.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import hybrids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from graftlab.types import Batch

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WINDOW = 16

CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

SENTENCES = (
    "The quick brown fox jumps over the lazy dog while the band plays on.",
    "A quiet record in three movements, with strings, brass and a patient drummer.",
    "Answer in one short sentence, please, and say which year the track was made.",
    "You are a helpful assistant. You write short notes about music for a listener.",
    "The second side opens with a slow waltz; the last song was recorded live in 1974.",
)

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.125,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA: dict[str, Any] = {
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}

# What an architecture adds to SMALL: config class, model class and its own fields.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 16}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": WINDOW}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {}),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {
            "logits_scaling": 3.0,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.25,
        },
    ),
    "cohere": ("CohereConfig", "CohereForCausalLM", {"logit_scale": 0.25}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**GEMMA, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    ),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "decoder_sparse_step": 1,
        },
    ),
}
TRANSFORMERS = tuple(KINDS)
HYBRIDS = tuple(hybrids.KINDS)
"""Kinds with layers that carry state along the row, which packing cannot isolate."""
KINDS |= hybrids.KINDS


def miniature(kind: str, folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write the miniature of architecture `kind` into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(kind, seed, json.dumps(overrides, sort_keys=True)).items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files(kind: str, seed: int, overrides: str) -> dict[str, bytes]:
    """What lies in the folder of that miniature, which is built once a process."""
    with TemporaryDirectory() as made:
        vocab_size = save_tokenizer(Path(made))
        model = build(kind, vocab_size=vocab_size, seed=seed, **json.loads(overrides))
        model.save_pretrained(made)
        return {file.name: file.read_bytes() for file in Path(made).iterdir()}


def build(kind: str, *, vocab_size: int = 400, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random fp32 model of architecture `kind`; `overrides` are config fields."""
    import torch
    import transformers

    config_name, model_name, own = KINDS[kind]
    fields = {**SMALL, **own, "vocab_size": vocab_size, **overrides}
    fields = {key: value for key, value in fields.items() if value is not None or key not in own}
    config = getattr(transformers, config_name)(**fields)
    model_class: Callable[..., PreTrainedModel] = getattr(transformers, model_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stirred(model_class(config))


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Biases and norms start at 0 and 1, which would hide mistakes."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def save_tokenizer(folder: Path) -> int:
    """Train a byte-level BPE with ChatML specials into `folder`; returns its size.

    Its normalizer and pre-tokenizer are Qwen2's: `AutoTokenizer` rebuilds those two for a Qwen2
    model whatever the file says, and with any others the file and the loaded tokenizer differ.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def flat_batch(lengths: list[int], *, vocab_size: int = 400, seed: int = 0) -> Batch:
    """A flat micro-batch of random documents; the last third of each is labelled."""
    import torch

    from graftlab.types import IGNORE, Batch

    generator = torch.Generator().manual_seed(seed)
    ids, labels = [], []
    for length in lengths:
        tokens = torch.randint(3, vocab_size, (length + 1,), generator=generator)
        target = tokens[1:].clone()
        target[: length - max(1, length // 3)] = IGNORE
        ids.append(tokens[:-1])
        labels.append(target)
    flat = torch.cat(labels)
    return Batch(
        input_ids=torch.cat(ids)[None],
        labels=flat[None],
        positions=torch.cat([torch.arange(n) for n in lengths])[None],
        boundaries=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        step_units=int((flat != IGNORE).sum()),
    )


def single_documents(batch: Batch) -> list[Batch]:
    """The documents of `batch`, each in a micro-batch of its own."""
    import torch

    from graftlab.types import Batch

    return [
        Batch(
            input_ids=batch.input_ids[:, place],
            labels=batch.labels[:, place],
            positions=batch.positions[:, place],
            boundaries=torch.tensor([0, place.stop - place.start], dtype=torch.int32),
            step_units=batch.step_units,
        )
        for place in batch.documents()
    ]
