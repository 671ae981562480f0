"""Replies are what the model says: exact when greedy, reproducible when drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from graftlab.adapters.base import Adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.peft import attach
from graftlab.errors import ConfigError, ModelError
from graftlab.generation import loop
from graftlab.generation.decode import Reply, generate, generate_batch
from graftlab.generation.sampling import Generation
from graftlab.models.base import Base
from graftlab.models.cache import acquire
from graftlab.models.hf import HFModel
from graftlab.models.slots import Slots
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message
from miniatures import miniature

ASK = Conversation((Message("system", "Be brief."), Message("user", "Which year was it made?")))
GREEDY = Generation(max_new_tokens=24)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(qwen2_folder: Path) -> Tokenizer:
    return load_tokenizer(qwen2_folder)


@pytest.fixture
def base(qwen2_folder: Path) -> Iterator[Base]:
    with acquire(HFModel(path=str(qwen2_folder)), dtype=torch.float32, device=CPU) as base:
        yield base


@pytest.fixture
def adapter(base: Base) -> Iterator[Adapter]:
    """An adapter that says something: B is not zero."""
    adapter = attach(base, Lora(rank=4, dropout=0.5), seed=1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    yield adapter
    adapter.detach()


def by_hand(base: Base, tokenizer: Tokenizer, conversation: Conversation, steps: int) -> list[int]:
    """Greedy decoding without cache, without `generate`."""
    prompt = tokenizer.render(conversation.messages, generation_prompt=True)
    ids = list(prompt)
    was_training = base.model.training
    base.model.eval()
    with torch.no_grad(), base.plain():
        for _ in range(steps):
            logits = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] in tokenizer.stop_ids:
                break
    base.model.train(was_training)
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", ["qwen2", "gemma3", "granite"])
def test_greedy_equals_argmax_without_cache(kind: str, tmp_path: Path) -> None:
    # With tied embeddings a random Gemma only repeats what it reads.
    folder = miniature(kind, tmp_path, tie_word_embeddings=False)
    tokenizer = load_tokenizer(folder)
    with acquire(HFModel(path=str(folder)), dtype=torch.float32, device=CPU) as base:
        expected = by_hand(base, tokenizer, ASK, 24)
        reply = generate(base, tokenizer, ASK, GREEDY)
    assert len(set(expected)) > 3  # the miniature says more than one thing
    assert reply.num_tokens == len(expected)
    assert reply.text == tokenizer.decode(expected).rstrip("\ufffd")
    assert reply.seconds > 0
    assert reply.tokens_per_second > 0


DRAWN: list[dict[str, float]] = [
    {},
    {"top_k": 5},
    {"top_k": 40, "temperature": 2.0},
    {"top_p": 0.7, "temperature": 0.6},
    {"min_p": 0.2},
    {"top_k": 60, "top_p": 0.9, "min_p": 0.01, "temperature": 1.3},
]


@pytest.mark.parametrize("drawn", DRAWN, ids=str)
def test_seeds_draw_what_transformers_draws(
    base: Base, tokenizer: Tokenizer, drawn: dict[str, float]
) -> None:
    prompt = torch.tensor([tokenizer.render(ASK.messages, generation_prompt=True)])
    seen = set()
    for seed in range(4):
        wanted: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, **drawn}
        with base.plain(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            theirs = base.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=GenerationConfig(
                    do_sample=True,
                    eos_token_id=list(tokenizer.stop_ids),
                    pad_token_id=0,
                    **{"top_k": 0, **wanted},
                ),
            )[0, prompt.shape[1] :].tolist()
        reply = generate(base, tokenizer, ASK, Generation(**wanted, seed=seed))
        assert reply.text == tokenizer.decode(theirs).rstrip("\ufffd")
        assert reply.num_tokens == len(theirs)
        seen.add(reply.text)
    assert len(seen) > 1


class Said:
    """A tokenizer that remembers the ids it decoded last for each reply."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.inner, self.stop_ids, self.ids = tokenizer, tokenizer.stop_ids, list[list[int]]()
        self.render = tokenizer.render

    def decode(self, ids: list[int]) -> str:
        self.ids.append(list(ids))
        return self.inner.decode(ids)


def _rare(replies: list[list[int]]) -> int:
    """A token at which some of the replies would end, at different places, and some not."""
    places = {
        token: {reply.index(token) if token in reply else 99 for reply in replies}
        for token in set().union(*replies)
    }
    return max(places, key=lambda token: len(places[token]))


QUESTIONS = [
    Conversation((Message("user", text),), "asked.jsonl", line)
    for line, text in enumerate(
        ["Who?", "Which year was the record made, and where?", "The quick brown fox " * 9, "So"], 1
    )
]


@pytest.mark.parametrize("kind", ["qwen2", "gemma3", "lfm2"])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_a_reply_in_a_batch_is_the_reply_alone(
    kind: str, temperature: float, tmp_path: Path
) -> None:
    """Whoever the neighbours are, though they end at different lengths."""
    folder = miniature(kind, tmp_path, tie_word_embeddings=False)
    tokenizer = load_tokenizer(folder)
    drawn = Generation(max_new_tokens=24, temperature=temperature, seed=3)
    with acquire(HFModel(path=str(folder)), dtype=torch.float32, device=CPU) as base:
        said = Said(tokenizer)
        for question in QUESTIONS:
            generate(base, said, question, drawn)  # type: ignore[arg-type]
        cut: Any = Said(tokenizer)  # an end that comes early for some and late for others
        cut.stop_ids = (*tokenizer.stop_ids, _rare(said.ids))
        alone = [generate(base, cut, question, drawn) for question in QUESTIONS]
        together = generate_batch(base, cut, QUESTIONS, drawn)
        turned = generate_batch(base, cut, QUESTIONS[::-1], drawn)[::-1]
    assert len({reply.num_tokens for reply in alone}) > 1
    for replies in (together, turned):
        assert [(r.text, r.num_tokens, r.stopped) for r in replies] == [
            (r.text, r.num_tokens, r.stopped) for r in alone
        ]
        assert all(reply.seconds > 0 for reply in replies)


def test_every_row_of_a_batch_has_the_context_to_itself(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lengths = [len(tokenizer.render(q.messages, generation_prompt=True)) for q in QUESTIONS]
    context = max(lengths) + 3
    assert min(lengths) < max(lengths) - 20
    folder = miniature(
        "qwen2", tmp_path, max_position_embeddings=context, tie_word_embeddings=False
    )
    wanted = Generation(max_new_tokens=40)
    with acquire(HFModel(path=str(folder)), dtype=torch.float32, device=CPU) as base:
        alone = [generate(base, tokenizer, q, wanted) for q in QUESTIONS]
        together = generate_batch(base, tokenizer, QUESTIONS, wanted)
        assert [r.text for r in together] == [r.text for r in alone]
        rooms = [min(40, context - length) for length in lengths]
        ended = [r.stopped or r.num_tokens == room for r, room in zip(together, rooms, strict=True)]
        assert all(ended)
        assert sum(not reply.stopped for reply in together) > 1
        longer = Conversation((Message("user", "The quick brown fox " * 12),), "asked.jsonl", 5)
        with pytest.raises(ModelError, match="asked.jsonl:5: the prompt has .* Shorten"):
            generate_batch(base, tokenizer, [*QUESTIONS, longer], wanted)


class Only:
    """A guide that allows these tokens in turn, and is done after the last."""

    def __init__(self, *allowed: set[int], width: int = 400) -> None:
        self.allowed, self.width, self.ids = allowed, width, list[int]()

    @property
    def done(self) -> bool:
        return len(self.ids) == len(self.allowed)

    def mask(self) -> torch.Tensor | None:
        allowed = torch.zeros(self.width, dtype=torch.bool)
        allowed[list(self.allowed[len(self.ids)])] = True
        return allowed

    def accept(self, token: int) -> bool:
        assert token in self.allowed[len(self.ids)]
        self.ids.append(token)
        return True

    def rollback(self, count: int) -> None:
        del self.ids[len(self.ids) - count :]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_guide_says_what_may_follow(base: Base, tokenizer: Tokenizer, temperature: float) -> None:
    ids = tokenizer.encode_text(["The waltz"])[0]
    drawn = Generation(max_new_tokens=30, temperature=temperature)

    def guided(room: int) -> Only:
        assert room == 30
        return Only(*({id} for id in ids), width=base.vocab_size)

    assert not generate(base, tokenizer, ASK, drawn).text.startswith("The waltz")
    reply = generate(base, tokenizer, ASK, drawn, guided=guided)
    assert (reply.text, reply.num_tokens, reply.stopped) == ("The waltz", len(ids), True)
    batch = generate_batch(base, tokenizer, QUESTIONS, drawn, guided=guided)
    assert [reply.text for reply in batch] == ["The waltz"] * len(QUESTIONS)


def test_greedy_ignores_the_folders_sampling_defaults(base: Base, tokenizer: Tokenizer) -> None:
    expected = generate(base, tokenizer, ASK, GREEDY).text
    own = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, suppress_tokens=list(range(300))
    )
    before, base.model.generation_config = base.model.generation_config, own
    try:
        assert generate(base, tokenizer, ASK, GREEDY).text == expected
        assert base.model.generation_config is own
    finally:
        base.model.generation_config = before


def test_a_drawn_reply_depends_on_its_seed_alone(base: Base, tokenizer: Tokenizer) -> None:
    def draw(seed: int) -> str:
        torch.manual_seed(torch.randint(10**6, ()).item())  # the world around it moves
        return generate(
            base, tokenizer, ASK, Generation(max_new_tokens=16, temperature=1.0, seed=seed)
        ).text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) == 4


def test_the_training_stream_is_untouched(base: Base, tokenizer: Tokenizer) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    generate(base, tokenizer, ASK, Generation(max_new_tokens=4, temperature=1.0, seed=3))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "support", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}]
)
def test_the_narrowest_support_is_greedy(
    base: Base, tokenizer: Tokenizer, support: dict[str, float]
) -> None:
    free = Generation(max_new_tokens=24, temperature=3.0, seed=5)
    narrow = Generation(**{"max_new_tokens": 24, "temperature": 3.0, "seed": 5, **support})  # type: ignore[arg-type]
    greedy = generate(base, tokenizer, ASK, GREEDY).text
    assert generate(base, tokenizer, ASK, free).text != greedy
    assert generate(base, tokenizer, ASK, narrow).text == greedy


@pytest.mark.parametrize(("support", "size"), [({"top_k": 3}, 3), ({}, 60)])
def test_the_support_is_as_wide_as_asked(
    base: Base, tokenizer: Tokenizer, support: dict[str, int], size: int
) -> None:
    """The first token of many draws; without a top_k, more than Hugging Face's default of 50."""
    first: list[list[int]] = []
    original = tokenizer.decode

    class Spy:
        stop_ids = tokenizer.stop_ids
        render = staticmethod(tokenizer.render)

        def decode(self, ids: list[int]) -> str:
            first.append(list(ids))
            return original(ids)

    for seed in range(150 if size > 3 else 40):
        drawn = Generation(max_new_tokens=1, temperature=20.0, seed=seed, **support)  # type: ignore[arg-type]
        generate(base, Spy(), ASK, drawn)  # type: ignore[arg-type]
    seen = {ids[0] for ids in first}
    assert len(seen) == 3 if size == 3 else len(seen) > size


def test_streamed_pieces_join_to_the_reply(base: Base, tokenizer: Tokenizer) -> None:
    hot = Generation(max_new_tokens=120, temperature=1.5, seed=0)  # random bytes, mostly
    pieces: list[str] = []
    reply = generate(base, tokenizer, ASK, hot, on_text=pieces.append)
    assert "".join(pieces) == reply.text
    assert 1 < len(pieces) <= reply.num_tokens
    assert reply == Reply(reply.text, reply.num_tokens, reply.stopped, reply.seconds)
    assert generate(base, tokenizer, ASK, hot).text == reply.text


def test_adapter_strength(base: Base, tokenizer: Tokenizer, adapter: Adapter) -> None:
    tuned = generate(base, tokenizer, ASK, GREEDY).text
    with adapter.disabled():
        plain = generate(base, tokenizer, ASK, GREEDY).text
    with adapter.scaled(0.0):
        zero = generate(base, tokenizer, ASK, GREEDY).text
    with adapter.scaled(1.0):
        full = generate(base, tokenizer, ASK, GREEDY).text
    assert plain == zero != tuned == full


def test_generation_inside_training(base: Base, tokenizer: Tokenizer, adapter: Adapter) -> None:
    """In train mode, with dropout and checkpointing on: no dropout in the reply, modes restored."""
    base.model.eval()
    expected = generate(base, tokenizer, ASK, GREEDY).text
    base.set_checkpointing(True)
    base.model.train()
    modes = [module.training for module in base.model.modules()]
    assert generate(base, tokenizer, ASK, GREEDY).text == expected
    assert [module.training for module in base.model.modules()] == modes
    assert all(parameter.requires_grad for _, parameter in adapter.named_parameters())
    base.set_checkpointing(False)


def test_stopping(base: Base, tokenizer: Tokenizer) -> None:
    cut = generate(base, tokenizer, ASK, Generation(max_new_tokens=3))
    assert (cut.num_tokens, cut.stopped) == (3, False)
    ids = by_hand(base, tokenizer, ASK, 24)
    later = next(index for index, id in enumerate(ids) if id != ids[0])

    class Stops:
        stop_ids = (ids[later],)
        render = staticmethod(tokenizer.render)
        decode = staticmethod(tokenizer.decode)

    ended = generate(base, Stops(), ASK, GREEDY)  # type: ignore[arg-type]
    assert (ended.num_tokens, ended.stopped) == (later + 1, True)


def test_context(tokenizer: Tokenizer, tmp_path: Path) -> None:
    length = len(tokenizer.render(ASK.messages, generation_prompt=True))
    for context, room in ((length + 5, 5), (length, 0)):
        folder = miniature("qwen2", tmp_path / str(context), max_position_embeddings=context)
        with acquire(HFModel(path=str(folder)), dtype=torch.float32, device=CPU) as base:
            if room:
                assert generate(base, tokenizer, ASK, GREEDY).num_tokens <= room
            else:
                with pytest.raises(ModelError, match=f"{length} tokens.*Shorten"):
                    generate(base, tokenizer, ASK, GREEDY)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"min_p": 2}, {"max_new_tokens": 0}]
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"generation.{next(iter(wrong))}"):
        Generation(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_slot_that_is_free_is_taken_by_the_next_turn(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where prompts are read in several passes."""
    folder = miniature(kind, tmp_path, tie_word_embeddings=False)
    tokenizer = load_tokenizer(folder)
    monkeypatch.setattr(loop, "PASS", 20)
    with acquire(HFModel(path=str(folder)), dtype=torch.float32, device=CPU) as base:
        alone = [by_hand(base, tokenizer, ask, 24) for ask in QUESTIONS * 2]
        told: list[int] = []
        replies = generate_batch(
            base, tokenizer, QUESTIONS * 2, GREEDY, batch=3, on_reply=lambda i, _: told.append(i)
        )
    assert [r.num_tokens for r in replies] == [len(ids) for ids in alone]
    texts = [tokenizer.decode(ids).rstrip("\ufffd") for ids in alone]
    assert [r.text for r in replies] == texts
    assert sorted(told) == list(range(8))


def test_what_all_prompts_begin_with_is_read_once(
    base: Base, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Message("system", "You are the keeper of a small museum of clocks.")
    asks = [Conversation((told, *ask.messages), ask.source, ask.line) for ask in QUESTIONS]
    alone = [generate(base, tokenizer, ask, GREEDY).text for ask in asks]
    monkeypatch.setattr(loop, "PASS", 10)
    read, real = list[int](), Slots.read

    def counted(slots: Slots, pieces: Any) -> torch.Tensor:
        read.extend(len(piece.ids) for piece in pieces)
        return real(slots, pieces)

    monkeypatch.setattr(Slots, "read", counted)
    replies = generate_batch(base, tokenizer, asks, GREEDY, batch=2)
    assert [reply.text for reply in replies] == alone
    prompts = [tokenizer.render(ask.messages, generation_prompt=True) for ask in asks]
    same = next(at for at, ids in enumerate(zip(*prompts, strict=False)) if len(set(ids)) > 1)
    assert same > 20
    said = sum(reply.num_tokens for reply in replies) - len(replies)  # the last ones are not read
    assert sum(read) == sum(map(len, prompts)) - same * (len(prompts) - 1) + said
