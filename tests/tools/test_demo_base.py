"""The shipped base is what the recipe makes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors import safe_open

from demo_assets.corpus import END_OF_TEXT, TURN_END, TURN_START, digest, documents
from demo_assets.course import batches, rate_factor
from demo_assets.pretrain import (
    ASSETS,
    Recipe,
    build_model,
    encode_stream,
    heldout_loss,
    make_base,
    train,
)
from demo_assets.tokenizer import train_tokenizer

LIMIT_BYTES = 12_000_000


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads((ASSETS / "base.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(ASSETS / "tokenizer.model"))


def test_the_default_recipe_is_the_recorded_one(facts: dict[str, Any]) -> None:
    assert Recipe(**facts["recipe"]) == Recipe()
    assert set(facts["recipe"]) == {field.name for field in fields(Recipe)}


def test_all_assets_together_are_small() -> None:
    files = [path for path in ASSETS.parent.rglob("*") if path.is_file()]
    assert len(files) >= 7
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES


def test_shapes_are_those_of_the_recipe(facts: dict[str, Any]) -> None:
    model = build_model(Recipe(), end_of_text=1, end_of_turn=4)
    expected = {name: list(p.shape) for name, p in model.named_parameters()}
    with safe_open(ASSETS / "model.safetensors", framework="pt") as weights:
        shipped = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        assert {name: list(piece.get_shape()) for name, piece in shipped.items()} == expected
        assert {piece.get_dtype() for piece in shipped.values()} == {"BF16"}
    count = sum(math.prod(shape) for shape in expected.values())
    assert count == facts["parameters"]
    assert 2_000_000 <= count <= 6_000_000


def test_it_loads_with_transformers_alone(
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ASSETS)
    assert model.config.model_type == "qwen2"
    assert model.config.max_position_embeddings >= 2048
    assert model.config.vocab_size == tokenizer.vocab_size() <= 4096
    assert model.config.bos_token_id is None
    end, stop = tokenizer.piece_to_id(END_OF_TEXT), tokenizer.piece_to_id(TURN_END)
    assert model.config.eos_token_id == stop
    assert model.generation_config.eos_token_id == [stop, end]
    assert tokenizer.eos_id() == end
    assert tokenizer.bos_id() == -1


def test_the_tokenizer_keeps_text_and_knows_the_turns(
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> None:
    for text in ("Two  spaces,\n\ta tab", "naïve Ωmega 漢字 🙂", " leading", "price: 1234"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(f"{TURN_START}user\nHello.{TURN_END}\n")
    assert ids[0] == tokenizer.piece_to_id(TURN_START)
    assert tokenizer.piece_to_id(TURN_END) in ids
    assert tokenizer.piece_to_id(END_OF_TEXT) not in tokenizer.encode(END_OF_TEXT)
    assert len(tokenizer.encode("1987")) == 4


def test_the_tokenizer_is_what_training_makes(facts: dict[str, Any]) -> None:
    made = train_tokenizer(facts["recipe"]["seed"], vocabulary=facts["recipe"]["vocabulary"])
    assert hashlib.sha256(made).hexdigest() == facts["tokenizer_sha256"]
    assert made == (ASSETS / "tokenizer.model").read_bytes()


def test_heldout_loss_is_the_recorded_one(
    facts: dict[str, Any], tokenizer: sentencepiece.SentencePieceProcessor
) -> None:
    from transformers import AutoModelForCausalLM

    stream, sha256 = encode_stream(tokenizer, Recipe(), "heldout")
    assert sha256 == facts["heldout"]["sha256"]
    assert len(stream) == facts["heldout"]["tokens"]
    model = AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32)
    loss = heldout_loss(model, stream, length=Recipe().context)
    assert loss == pytest.approx(facts["heldout_loss"], rel=0.02)
    assert loss < 0.3 * math.log(Recipe().vocabulary)


def test_rates_warm_up_stay_and_fall_to_zero() -> None:
    factors = [rate_factor(step, steps=200, course=Recipe()) for step in range(200)]
    assert factors[0] < factors[10] < 1.0 == factors[50]
    assert factors == sorted(factors[:100]) + sorted(factors[100:], reverse=True)
    assert factors[-1] < 0.02


def test_batches_read_the_stream_once_in_both_row_lengths() -> None:
    recipe = replace(Recipe(), row_length=8, context=32, step_tokens=64, long_share=0.5)
    stream = np.arange(64 * 8 + 1, dtype=np.int32)
    drawn = list(batches(stream, recipe))
    assert {rows.shape for rows in drawn} == {(8, 9), (2, 33)}
    read = torch.cat([rows[:, :-1].flatten() for rows in drawn])
    assert len(set(read.tolist())) == len(read) >= 64 * 6


def test_a_shortened_recipe_learns(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    recipe = Recipe(
        documents=120, heldout_documents=12, hidden=64, feed_forward=96, layers=2, heads=2,
        head_dim=32, wired=False, context=512, row_length=128, step_tokens=1024, warmup_steps=3,
    )  # fmt: skip
    stream, _ = encode_stream(tokenizer, recipe, "train")
    heldout, _ = encode_stream(tokenizer, recipe, "heldout")
    model = build_model(recipe, end_of_text=1, end_of_turn=4)
    before = heldout_loss(model, heldout, length=recipe.context)
    losses: list[float] = []
    train(model, stream, recipe, on_step=lambda step, steps, loss: losses.append(loss))
    assert len(losses) >= 10
    assert before == pytest.approx(math.log(recipe.vocabulary), rel=0.05)
    assert heldout_loss(model, heldout, length=recipe.context) < before - 1.0
    assert not model.training


def repeated(model: Any, *, length: int = 120) -> float:
    """Share of tokens predicted right in the second half of a random text said twice."""
    half = torch.randint(300, 4096, (4, length), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([half, half], dim=1)
    with torch.no_grad():
        guesses = model(rows, use_cache=False).logits[:, length:-1].argmax(-1)
    return float((guesses == rows[:, length + 1 :]).float().mean())


def test_the_wired_layers_copy_before_any_training() -> None:
    wired = build_model(Recipe(), end_of_text=1, end_of_turn=4)
    assert repeated(wired) > 0.4
    assert (
        repeated(build_model(replace(Recipe(), wired=False), end_of_text=1, end_of_turn=4)) < 0.02
    )


def test_training_leaves_the_wiring_alone(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    recipe = replace(Recipe(), documents=20, context=256, row_length=128, step_tokens=256)
    model = build_model(recipe, end_of_text=1, end_of_turn=4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stream, _ = encode_stream(tokenizer, recipe, "train")
    train(model, stream[: 256 * 4 + 1], recipe, on_step=lambda step, steps, loss: None)
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert kept == {
        f"model.layers.{layer}.self_attn.{part}"
        for layer in (0, 1)
        for part in (
            "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
            "q_proj.bias", "k_proj.bias", "v_proj.bias",
        )
    }  # fmt: skip


@pytest.mark.recipe
@pytest.mark.timeout(10800)
def test_the_whole_recipe_makes_the_shipped_base(tmp_path: Path, facts: dict[str, Any]) -> None:
    made = make_base(Recipe(), tmp_path, on_step=lambda step, steps, loss: None)
    assert made["recipe"] == facts["recipe"]
    assert made["corpus"] == facts["corpus"]
    assert made["heldout"] == facts["heldout"]
    assert made["tokenizer_sha256"] == facts["tokenizer_sha256"]
    assert made["heldout_loss"] == pytest.approx(facts["heldout_loss"], rel=0.05)


@pytest.mark.slow
def test_the_recorded_corpus_is_the_generated_one(facts: dict[str, Any]) -> None:
    recipe = Recipe()
    made = digest(documents(recipe.seed, "train", recipe.documents))
    assert made == facts["corpus"]["sha256"]
