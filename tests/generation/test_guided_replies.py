"""Guided replies by a real model: through the decode loop, alone, in batches and with a draft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftlab.errors import ConfigError
from graftlab.generation.decode import Reply, generate, generate_batch
from graftlab.generation.form import form_of
from graftlab.generation.guide import make_guide
from graftlab.generation.sampling import Generation
from graftlab.generation.speculative import Draft
from graftlab.models.base import Base
from graftlab.models.hf import HFModel
from graftlab.text.json_schema import mismatch
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message
from miniatures import miniature
from schemas import SCHEMAS, closed

ASK = Conversation((Message("user", "Describe the record as JSON."),))
NAMES = ("nested", "enum", "numbers")
TEMPERATURES = (0.0, 1.0, 1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature("qwen2", tmp_path_factory.mktemp("guided"), tie_word_embeddings=False)


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return HFModel(path=str(folder)).load(dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return HFModel(path=str(folder)).load_tokenizer()


def guided(name: str, tokenizer: Tokenizer, *, slack: int = 10, **changes: float) -> Generation:
    least = form_of(SCHEMAS[name], tokenizer).least
    return Generation(schema=SCHEMAS[name], max_new_tokens=least + slack, **changes)  # type: ignore[arg-type]


def holds(reply: Reply, generation: Generation) -> bool:
    assert mismatch(reply.text, generation.schema) is None, reply.text
    assert reply.valid
    assert reply.stopped
    assert reply.num_tokens <= generation.max_new_tokens
    return True


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", NAMES)
def test_replies_follow_the_schema(
    base: Base, tokenizer: Tokenizer, name: str, temperature: float
) -> None:
    generation = guided(name, tokenizer, temperature=temperature, seed=3)
    free = Generation(max_new_tokens=generation.max_new_tokens, temperature=temperature, seed=3)
    assert holds(generate(base, tokenizer, ASK, generation), generation)
    without = generate(base, tokenizer, ASK, free)
    assert without.valid is None
    assert mismatch(without.text, SCHEMAS[name]) is not None


def test_a_batch_says_what_each_says_alone(base: Base, tokenizer: Tokenizer) -> None:
    asked = [Conversation((Message("user", text),)) for text in ("one", "two or more", "three")]
    generation = guided("nested", tokenizer, temperature=1.0)
    alone = [generate(base, tokenizer, ask, generation) for ask in asked]
    together = generate_batch(base, tokenizer, asked, generation)
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert all(holds(reply, generation) for reply in together)
    assert len({reply.text for reply in together}) > 1


def test_a_draft_changes_no_greedy_reply(base: Base, tokenizer: Tokenizer) -> None:
    for name in NAMES:
        generation = guided(name, tokenizer)
        plain = generate(base, tokenizer, ASK, generation)
        helped = generate(base, tokenizer, ASK, generation, draft=Draft(base, 4))
        assert helped.text == plain.text
        assert holds(helped, generation)
        assert helped.speculated is not None
        assert helped.speculated.accepted > 0
    drawn = guided("nested", tokenizer, temperature=1.5)
    assert holds(generate(base, tokenizer, ASK, drawn, draft=Draft(base, 4)), drawn)


def test_the_likeliest_of_the_allowed_tokens_is_taken(base: Base, tokenizer: Tokenizer) -> None:
    """Greedy: each token is the best that the schema allows, by the model's own logits."""
    generation = guided("enum", tokenizer, slack=200)
    form = form_of(SCHEMAS["enum"], tokenizer)
    ids = tokenizer.encode_text([generate(base, tokenizer, ASK, generation).text])[0]
    prompt = tokenizer.render(ASK.messages, generation_prompt=True)
    guide = make_guide(form, generation.max_new_tokens, width=base.vocab_size)
    said: list[int] = []
    while not guide.done:
        with base.context() as context:
            logits = context.feed(torch.tensor([prompt + said]), last=1)[0, -1]
        token = int(logits.masked_fill(~guide.mask(), -torch.inf).argmax())
        assert guide.accept(token)
        said.append(token)
    assert tokenizer.decode(said) == tokenizer.decode(ids)


def test_temperature_and_cuts_act_behind_the_mask(base: Base, tokenizer: Tokenizer) -> None:
    """Words of a schema are drawn as often as the model would say them, were they all there is."""
    colours = ["The", "quick", "waltz"]
    schema = {"enum": colours}
    counts = dict.fromkeys(colours, 0)
    for seed in range(150):
        wanted = Generation(schema=schema, temperature=1.0, seed=seed, max_new_tokens=60)
        counts[generate(base, tokenizer, ASK, wanted).text.strip('"')] += 1
    expected = exact(base, tokenizer, schema)
    assert min(expected.values()) > 0.02, "the model has no clear favourite"
    for colour in colours:
        spread = (expected[colour] * (1 - expected[colour]) / 150) ** 0.5
        assert abs(counts[colour] / 150 - expected[colour]) < 4 * spread + 0.01
    nucleus = Generation(schema=schema, temperature=1.0, top_k=1, max_new_tokens=60)
    assert (
        generate(base, tokenizer, ASK, nucleus).text
        == generate(base, tokenizer, ASK, Generation(schema=schema, max_new_tokens=60)).text
    )


def exact(base: Base, tokenizer: Tokenizer, schema: dict[str, list[str]]) -> dict[str, float]:
    """The probability of each word, summed over all its spellings."""
    form = form_of(schema, tokenizer)
    prompt = tokenizer.render(ASK.messages, generation_prompt=True)
    found = {f'"{word}"': 0.0 for word in schema["enum"]}
    open_: list[tuple[list[int], float]] = [([], 1.0)]
    while open_:
        said, chance = open_.pop()
        guide = make_guide(form, 60, width=base.vocab_size)
        for token in said:
            assert guide.accept(token)
        if guide.done:
            found[tokenizer.decode(said)] += chance
            continue
        if chance < 1e-4:
            continue
        with base.context() as context:
            logits = context.feed(torch.tensor([prompt + said]), last=1)[0, -1]
        shares = logits.masked_fill(~guide.mask(), -torch.inf).softmax(-1)
        for token in guide.mask().nonzero().flatten().tolist():
            open_.append(([*said, token], chance * float(shares[token])))
    assert sum(found.values()) == pytest.approx(1, abs=0.02)
    return {text.strip('"'): chance for text, chance in found.items()}


def test_the_context_may_leave_no_room(base: Base, tokenizer: Tokenizer) -> None:
    long = Conversation((Message("user", "fox " * 1000),))
    length = len(tokenizer.render(long.messages, generation_prompt=True))
    assert 2000 < length < 2048, "the prompt nearly fills the context"
    with pytest.raises(ConfigError, match=r"the shortest takes \d+\. Raise .* no more room"):
        generate(base, tokenizer, long, guided("nested", tokenizer, slack=500))


def test_rows_bring_schemas_of_their_own(base: Base, tokenizer: Tokenizer) -> None:
    schema = closed(year={"type": "integer", "minimum": 1950, "maximum": 2030})
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    generation = Generation(schema="row", max_new_tokens=40, temperature=1.5)
    question = Message("user", "Which year?", wanted)
    call = {"type": "function", "function": {"name": "year", "arguments": {}}}
    looked = (Message("assistant", "", tool_calls=(call,)), Message("tool", "1974"))
    asked = [ASK, Conversation((question,)), Conversation((question, *looked))]
    free, *bound = generate_batch(base, tokenizer, asked, generation)
    assert [reply.valid for reply in (free, *bound)] == [None, True, True]
    assert all(mismatch(reply.text, schema) is None for reply in bound)
    bad = {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": True}}}
    wrong = Conversation((Message("user", "Which?", bad),), "asked.jsonl", 7)
    with pytest.raises(ConfigError, match="asked.jsonl:7: response_format: .*\n.*uniqueItems"):
        generate(base, tokenizer, wrong, generation)
