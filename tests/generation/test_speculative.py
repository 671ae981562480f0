"""With a draft a reply is what it is without: the same tokens, or the same distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graftlab.errors import ModelError
from graftlab.generation import speculative
from graftlab.generation.decode import Reply, generate
from graftlab.generation.draw import Sampler
from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.generation.speculative import Draft, speculate
from graftlab.generation.turn import Turn
from graftlab.models.base import Base
from graftlab.models.hf import HFModel
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message
from miniatures import HYBRIDS, SENTENCES, miniature
from slower import mostly_slow
from table_models import CPU, TableBase, table_base

QUESTIONS = [Conversation((Message("user", text),)) for text in (*SENTENCES[:3], "Who?", "A " * 30)]
QUALITIES = ("the base itself", "a worse base", "a random model", "another vocabulary width")


def load(kind: str, folder: Path, **changes: Any) -> Base:
    path = miniature(kind, folder, tie_word_embeddings=False, **changes)
    return HFModel(path=str(path)).load(dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module", params=["qwen2", "gemma3"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Base, Tokenizer, dict[str, Base]]:
    """A base, its tokenizer, and drafts from perfect to useless."""
    root = tmp_path_factory.mktemp(request.param)
    base = load(request.param, root / "base")
    worse = load(request.param, root / "worse")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in worse.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.15 * float(parameter.std()))
    wide = miniature(request.param, root / "wide", tie_word_embeddings=False, seed=3)
    wider = HFModel(path=str(wide)).load(dtype=torch.float32, device=CPU)
    wider.model.resize_token_embeddings(base.vocab_size + 24)
    others = (base, worse, load(request.param, root / "random", seed=9), wider)
    return base, load_tokenizer(root / "base"), dict(zip(QUALITIES, others, strict=True))


class Said:
    """The tokenizer with other stop tokens, and the ids it was asked to decode."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...] = ()) -> None:
        self.stop_ids = stop_ids or tokenizer.stop_ids
        self.inner, self.ids, self.render = tokenizer, list[list[int]](), tokenizer.render

    def decode(self, ids: list[int]) -> str:
        self.ids.append(list(ids))
        return self.inner.decode(ids)


def ask(
    base: Base,
    tokenizer: Tokenizer,
    wanted: Generation,
    *,
    stop_ids: tuple[int, ...] = (),
    **how: Any,
) -> tuple[list[list[int]], list[Reply]]:
    said: Any = Said(tokenizer, stop_ids)
    replies = [generate(base, said, question, wanted, **how) for question in QUESTIONS]
    return said.ids, replies


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("tokens", mostly_slow([1, 5], 5))
def test_greedy_replies_are_the_same(
    pair: tuple[Base, Tokenizer, dict[str, Base]], quality: str, tokens: int
) -> None:
    base, tokenizer, drafts = pair
    draft = Draft(drafts[quality], tokens)
    for most in (1, 7, 18):  # so that the end falls into every place of a round
        wanted = Generation(max_new_tokens=most)
        expected, plain = ask(base, tokenizer, wanted)
        ids, replies = ask(base, tokenizer, wanted, draft=draft)
        assert ids == expected
        assert [(r.text, r.num_tokens, r.stopped) for r in replies] == [
            (r.text, r.num_tokens, r.stopped) for r in plain
        ]
    told = [reply.speculated for reply in replies if reply.speculated]
    assert len(told) == len(QUESTIONS)
    rounds, proposed, accepted = (
        sum(getattr(each, name) for each in told) for name in ("rounds", "proposed", "accepted")
    )
    assert sum(reply.num_tokens for reply in replies) == rounds + accepted - sum(
        reply.stopped and _stop_was_proposed(reply) for reply in replies
    )
    share = accepted / proposed
    assert share == 1 if quality == "the base itself" else share < 0.9
    if quality == "a worse base":
        assert share > 0.05


def _stop_was_proposed(reply: Reply) -> bool:
    """The base said nothing behind an accepted stop token: one token less than usual."""
    assert reply.speculated is not None
    return reply.num_tokens == reply.speculated.rounds + reply.speculated.accepted - 1


@pytest.mark.parametrize("quality", QUALITIES[:2])
def test_a_stop_token_inside_the_accepted_run_ends_the_reply(
    pair: tuple[Base, Tokenizer, dict[str, Base]], quality: str
) -> None:
    base, tokenizer, drafts = pair
    free, _ = ask(base, tokenizer, Generation(max_new_tokens=24))
    inside = 0
    for place in (0, 3, 4, 7):
        stop_ids = (free[0][place], free[1][place + 3])
        wanted = Generation(max_new_tokens=16)
        expected, _ = ask(base, tokenizer, wanted, stop_ids=stop_ids)
        ids, replies = ask(
            base, tokenizer, wanted, stop_ids=stop_ids, draft=Draft(drafts[quality], 5)
        )
        assert ids == expected
        assert all(reply.stopped for reply in replies[:2])
        inside += sum(_stop_was_proposed(reply) for reply in replies)
    assert inside > (4 if quality == "the base itself" else 0)


def test_the_context_ends_in_the_middle_of_a_round(tmp_path: Path) -> None:
    """The base's own, and a draft's that is smaller still: then decoding goes on plainly."""
    tokenizer_of = miniature("qwen2", tmp_path / "any", tie_word_embeddings=False)
    tokenizer = load_tokenizer(tokenizer_of)
    longest = max(len(tokenizer.render(q.messages, generation_prompt=True)) for q in QUESTIONS)
    base = load("qwen2", tmp_path / "base", max_position_embeddings=longest + 8)
    small = load("qwen2", tmp_path / "small", max_position_embeddings=longest - 20)
    wanted = Generation(max_new_tokens=60)
    expected, plain = ask(base, tokenizer, wanted)
    assert {len(ids) for ids in expected} > {8}
    for draft in (base, small):
        ids, replies = ask(base, tokenizer, wanted, draft=Draft(draft, 5))
        assert ids == expected
        assert [reply.stopped for reply in replies] == [reply.stopped for reply in plain]
    told = [reply.speculated.proposed for reply in replies if reply.speculated]
    assert min(told) == 0 < max(told)
    longer = Conversation((Message("user", "A " * 60),), "asked.jsonl", 5)
    with pytest.raises(ModelError, match="asked.jsonl:5: the prompt has .* Shorten"):
        generate(base, tokenizer, longer, wanted, draft=Draft(base, 5))


@pytest.mark.parametrize("kind", HYBRIDS)
def test_a_model_that_cannot_take_back_is_refused(
    kind: str, tmp_path: Path, make_base: Callable[[str], Base]
) -> None:
    base, wanted = make_base(kind), Generation(max_new_tokens=3)
    tokenizer = load_tokenizer(miniature("qwen2", tmp_path))
    assert generate(base, tokenizer, QUESTIONS[0], wanted).num_tokens
    with pytest.raises(ModelError, match="Leave draft= out"):
        generate(base, tokenizer, QUESTIONS[0], wanted, draft=Draft(base, 5))


def test_the_streamed_text_is_the_reply(pair: tuple[Base, Tokenizer, dict[str, Base]]) -> None:
    base, tokenizer, drafts = pair
    pieces: list[str] = []
    wanted = Generation(max_new_tokens=30)
    draft = Draft(drafts["a worse base"], 4)
    reply = generate(base, tokenizer, SPOKEN, wanted, draft=draft, on_text=pieces.append)
    assert "".join(pieces) == reply.text == generate(base, tokenizer, SPOKEN, wanted).text


SPOKEN = QUESTIONS[2]


def turn_for(sampler: Sampler, *, room: int, stop_ids: tuple[int, ...] = (), **how: Any) -> Turn:
    turn = Turn([0, 1], sampler, where="prompt", stop_ids=stop_ids, **how)
    turn.room = room
    return turn


class Branching(Sampler):
    """Follows a script of choices, and knows how likely they were: all scripts are all replies."""

    def follow(self, script: list[int]) -> None:
        self.script, self.taken, self.weight = script, 0, 1.0
        self.widths: list[list[int]] = []

    def draw(self, probabilities: Tensor, stream: torch.Generator) -> int:
        return self._branch({i: float(p) for i, p in enumerate(probabilities.double()) if p > 0})

    def keeps(self, chance: float, stream: torch.Generator) -> bool:
        chance = min(chance, 1.0)
        return bool(self._branch({i: p for i, p in ((1, chance), (0, 1 - chance)) if p > 0}))

    def _branch(self, weights: dict[int, float]) -> int:
        options = sorted(weights)
        self.widths.append(options)
        index = self.script[self.taken] if self.taken < len(self.script) else 0
        self.taken += 1
        self.weight *= weights[options[index]]
        return options[index]


def distribution(run: Callable[[Branching], list[int]], sampler: Branching) -> dict[Any, float]:
    """Every reply with its exact probability, by running through all branches."""
    found: dict[Any, float] = {}
    script: list[int] = []
    while True:
        sampler.follow(script)
        reply = tuple(run(sampler))
        found[reply] = found.get(reply, 0.0) + sampler.weight
        script = (script + [0] * len(sampler.widths))[: len(sampler.widths)]
        while script and script[-1] + 1 == len(sampler.widths[len(script) - 1]):
            script.pop()
        if not script:
            return found
        script[-1] += 1


def by_hand(base: TableBase, sampler: Sampler, *, room: int, stop: int) -> dict[Any, float]:
    """The distribution of replies to [0, 1], by multiplying what the table says."""
    found: dict[Any, float] = {}

    def extend(reply: tuple[int, ...], weight: float) -> None:
        if len(reply) == room or (reply and reply[-1] == stop):
            found[reply] = weight
            return
        tokens = [0, 1, *reply]
        logits = base.table[(len(tokens) - 1) % len(base.table), tokens[-1]]
        for token, p in enumerate(sampler.probabilities(logits[None])[0].double().tolist()):
            if p > 0:
                extend((*reply, token), weight * p)

    extend((), 1.0)
    return found


WARPED: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.6, "top_k": 2},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.3},
]
LARGE = table_base(seed=1, vocab=4, spread=0.7)
DRAFTS = {"good": TableBase(LARGE.table * 0.8 + 0.1), "bad": table_base(seed=2, vocab=4, spread=2)}


def apart(draft: TableBase, warped: dict[str, Any], *, tokens: int) -> float:
    """Total variation between replies with the draft and what the base says alone."""
    sampler = Branching(Generation(**warped), CPU)

    def run(sampler: Branching) -> list[int]:
        turn = turn_for(sampler, room=3, stop_ids=(3,))
        speculate(LARGE, turn, Draft(draft, tokens))  # type: ignore[arg-type]
        return turn.ids

    found = distribution(run, sampler)
    expected = by_hand(LARGE, sampler, room=3, stop=3)
    assert len(expected) > 4
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    keys = found.keys() | expected.keys()
    return sum(abs(found.get(key, 0) - expected.get(key, 0)) for key in keys) / 2


@pytest.mark.parametrize("warped", WARPED, ids=str)
@pytest.mark.parametrize("quality", DRAFTS)
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_drawn_replies_have_the_very_same_distribution(
    warped: dict[str, Any], quality: str, tokens: int
) -> None:
    """Exactly: every way that the draws can fall is followed, and its probability summed."""
    assert apart(DRAFTS[quality], warped, tokens=tokens) < 1e-5


BROKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "drawn again from the base": lambda wanted, drawn_from: wanted,
    "not limited to what is missing": lambda wanted, drawn_from: (
        (wanted - drawn_from).abs() / (wanted - drawn_from).abs().sum()
    ),
    "drawn again from the draft": lambda wanted, drawn_from: drawn_from,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative, "residual", BROKEN[name])
    assert apart(DRAFTS["bad"], WARPED[0], tokens=2) > 0.02


def chi_square(counts: dict[Any, int], expected: dict[Any, float], draws: int) -> float:
    """Pearson's statistic, as standard deviations above its mean (about normal)."""
    terms = [(counts.get(key, 0) - p * draws) ** 2 / (p * draws) for key, p in expected.items()]
    degrees = len(expected) - 1
    return float((sum(terms) - degrees) / (2 * degrees) ** 0.5)


@pytest.mark.parametrize("broken", [False, True])
def test_the_streams_themselves_draw_it(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same by counting, with the true random streams of many seeds."""
    if broken:
        monkeypatch.setattr(speculative, "residual", BROKEN["drawn again from the base"])
    counts: dict[Any, int] = {}
    draws = 2500
    for seed in range(draws):
        sampler = Sampler(Generation(temperature=1.0, seed=seed), CPU)
        turn = turn_for(sampler, room=2)
        speculate(LARGE, turn, Draft(DRAFTS["bad"], 2))  # type: ignore[arg-type]
        counts[tuple(turn.ids)] = counts.get(tuple(turn.ids), 0) + 1
    expected = by_hand(LARGE, sampler, room=2, stop=-1)
    assert min(expected.values()) * draws > 5
    score = chi_square(counts, expected, draws)
    assert score > 8 if broken else score < 3


@pytest.mark.parametrize("warped", [*WARPED, {"temperature": 0.0}], ids=str)
def test_a_perfect_draft_is_always_believed(warped: dict[str, Any]) -> None:
    """And saves passes: k + 1 tokens a round, the prompt among what the first one reads."""
    base, draft = (table_base(seed=3, vocab=6, spread=2) for _ in range(2))
    sampler = Sampler(Generation(**warped), CPU)
    turn = turn_for(sampler, room=24)
    told = speculate(base, turn, Draft(draft, 5))  # type: ignore[arg-type]
    assert told.accepted == told.proposed == 20
    assert told.rounds == 4
    assert base.fed == [7, 6, 6, 6]
    assert draft.fed == [2, 1, 1, 1, 1, *[2, 1, 1, 1, 1] * 3]


class Alternate:
    """A guide: tokens of falling parity; refuses one that its mask allows; done after nine."""

    def __init__(self, vocab: int) -> None:
        self.vocab, self.ids, self.refused = vocab, list[int](), set[int]()

    @property
    def done(self) -> bool:
        return len(self.ids) == 9

    def mask(self) -> Tensor:
        allowed = torch.arange(self.vocab) % 2 == len(self.ids) % 2
        allowed[list(self.refused)] = False
        return allowed

    def accept(self, token: int) -> bool:
        assert bool(self.mask()[token])
        if not self.refused and (token + len(self.ids)) % 3 == 0:
            self.refused.add(token)
            return False
        self.ids.append(token)
        self.refused.clear()
        return True

    def rollback(self, count: int) -> None:
        assert count <= len(self.ids)
        self.refused.clear()
        if count:
            del self.ids[-count:]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_a_guided_reply_is_the_same_with_a_draft(temperature: float, spread: float) -> None:
    """Token by token, drawn ones too, and however good the draft."""
    base = table_base(seed=4, vocab=8, spread=2)
    noise = table_base(seed=5, vocab=8, spread=spread)
    draft = Draft(TableBase(base.table + noise.table), 4)  # type: ignore[arg-type]
    accepted = 0
    for seed in range(20):
        sampler = Sampler(Generation(temperature=temperature, seed=seed), CPU)
        replies = []
        for help_ in (None, draft):
            turn = turn_for(sampler, room=30, guided=lambda room: Alternate(8))
            if help_ is None:
                decode(base, [turn])  # type: ignore[arg-type]
            else:
                accepted += speculate(base, turn, draft).accepted  # type: ignore[arg-type]
            assert turn.stopped
            replies.append(turn.ids)
        assert replies[0] == replies[1]
        assert [token % 2 for token in replies[0]] == [0, 1] * 4 + [0]
    assert accepted > 10
