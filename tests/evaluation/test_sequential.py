"""Asking stops when the verdict is clear: seldom for nothing, and early for what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from evaluation_results import made_results
from graftlab.errors import ConfigError
from graftlab.evaluation.anytime import anytime_p, confidence_sequence
from graftlab.evaluation.metrics.base import LESS, MORE, Measure
from graftlab.evaluation.metrics.chosen import Metrics
from graftlab.evaluation.metrics.style import Style
from graftlab.evaluation.page import page
from graftlab.evaluation.results import Early, Results
from graftlab.evaluation.sequential import check_deciding, is_clear, looks, shuffled
from graftlab.evaluation.spec import EvaluateSpec
from graftlab.evaluation.verdicts import contrast, mcnemar, sign_flip
from graftlab.generation.sampling import Generation
from graftlab.verbs.evaluate import run

Asked = Callable[..., EvaluateSpec]
KINDS = ("share", "numbers", "counts")
N = 200


def drawn(random: np.random.Generator, kind: str, gain: float, n: int = N) -> list[np.ndarray]:
    """Values of two models on the same prompts, whose difficulty they share."""
    hard = random.normal(size=n)
    if kind == "share":
        chance = 1 / (1 + np.exp(-hard))
        return [(random.random(n) < np.clip(chance + g, 0, 1)).astype(float) for g in (0, gain)]
    if kind == "counts":  # many zeros, few large ones
        return [random.poisson(np.exp(hard - 1 + shift)).astype(float) for shift in (0, gain)]
    return [hard + random.normal(size=n) + shift for shift in (0, gain)]


def seen(values: dict[str, list[np.ndarray]], count: int) -> Results:
    """What is known after `count` prompts, a measure for each kind."""
    return Results(
        prompts=[],
        replies={"first": [], "second": []},
        scores={
            model: {
                kind: [[{"it": float(value)}] for value in both[place][:count]]
                for kind, both in values.items()
            }
            for place, model in enumerate(("first", "second"))
        },
        measures={
            (kind, "it"): Measure(about="", better=MORE, share=kind == "share") for kind in values
        },
        models={},
        settings={},
        early=Early(N, True, 0, []),
    )


def stopped_after(values: dict[str, list[np.ndarray]], batch: int) -> int | None:
    for count in looks(N, batch=batch):
        if is_clear(seen(values, count), []):
            return count
    return None


def false_winners(simulations: int, batch: int) -> dict[str, float]:
    random = np.random.default_rng(11)
    return {
        kind: fmean(
            stopped_after({kind: drawn(random, kind, 0.0)}, batch) is not None
            for _ in range(simulations)
        )
        for kind in KINDS
    }


def test_equal_models_are_seldom_told_apart_by_peeking() -> None:
    most = 0.05 + 1.64 * (0.05 * 0.95 / 40) ** 0.5
    assert max(false_winners(40, batch=24).values()) <= most


@pytest.mark.slow
def test_equal_models_of_a_thousand_are_seldom_told_apart_by_peeking() -> None:
    found = false_winners(1000, batch=8)
    assert max(found.values()) <= 0.05, found
    assert max(found.values()) > 0.005, "it is not that nothing is ever found"


def test_repeated_fixed_tests_would_fail() -> None:
    """What the looks cost that do not allow for it: the reason for all this."""
    random = np.random.default_rng(12)
    wrong = 0
    for _ in range(200):
        first, second = drawn(random, "share", 0.0)
        moved = np.sign(second - first)
        wrong += any(
            mcnemar(int((moved[:n] > 0).sum()), int((moved[:n] < 0).sum())) <= 0.05
            for n in looks(N, batch=8)
        )
    assert wrong / 200 > 0.1


@pytest.mark.parametrize(("kind", "gain"), [("share", 0.25), ("numbers", 0.65), ("counts", 0.8)])
def test_a_real_difference_takes_half_of_the_prompts(kind: str, gain: float) -> None:
    random = np.random.default_rng(13)
    asked, fixed, found = [], 0, 0
    for _ in range(30):
        values = drawn(random, kind, gain)
        count = stopped_after({kind: values}, batch=8)
        asked.append(count or N)
        fixed += sign_flip(list(values[1] - values[0])) <= 0.05
        if count is not None:
            (verdict,) = seen({kind: values}, count).verdicts.values()
            found += verdict.word == "better"
    assert fixed >= 29, "the fixed test of all prompts finds it"
    assert found >= 27
    assert fmean(asked) <= N / 2


def test_all_that_differ_must_be_clear() -> None:
    random = np.random.default_rng(14)
    apart, same = drawn(random, "share", 0.5), [np.zeros(N), np.zeros(N)]
    little = drawn(random, "numbers", 0.05)
    assert is_clear(seen({"share": apart, "counts": same}, N), [])
    assert not is_clear(seen({"share": apart, "numbers": little}, N), [])
    assert is_clear(seen({"share": apart, "numbers": little}, N), ["share"])
    assert not is_clear(seen({"share": apart, "numbers": little}, N), ["numbers.it"])
    assert not is_clear(seen({"counts": same}, N), [])
    some = next(n for n in range(5, N) if is_clear(seen({"share": apart}, n), []))
    assert not is_clear(seen({"share": apart}, some), [], preferences=2), "these count as well"


def test_known_values() -> None:
    # Half of the capital, in twenty bets: 0.5 * mean((1 + g)**10), g being 0.025, 0.075 ...
    gained = fmean((1 + (n + 0.5) / 20) ** 10 for n in range(20))
    assert anytime_p([1.0] * 10, share=True) == pytest.approx(2 / gained)
    assert anytime_p([1.0, 0.0] * 10, share=True) == anytime_p([1.0] * 10, share=True)
    assert anytime_p([-1.0] * 10, share=True) == anytime_p([1.0] * 10, share=True)
    assert anytime_p([], share=True) == anytime_p([0.0, 0.0], share=False) == 1
    assert anytime_p([1.0, -1.0], share=False) == 1
    large = anytime_p([300.0, 500.0] * 6, share=False)
    assert large == pytest.approx(anytime_p([3.0, 5.0] * 6, share=False)), "any unit will do"
    turned = [1.0] * 20 + [-1.0] * 30
    assert anytime_p(turned, share=True) > 0.05, "won before, and lost again since"


def test_a_confidence_sequence_holds_at_every_time() -> None:
    random = np.random.default_rng(15)
    missed = 0
    for _ in range(25):
        values = random.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=120)
        low, high = confidence_sequence(list(values), most=1, level=0.95)
        assert low < values.mean() < high
        missed += not low <= 0.2 <= high
    assert missed <= 3
    long = list(np.resize([1.0, 0.0, 0.0, 0.0, 0.0], 600))
    low, high = confidence_sequence(long, most=1, level=0.95)
    assert 0.1 < low < 0.2 < high < 0.3
    scaled = confidence_sequence([100 * value for value in long], most=100, level=0.95)
    assert scaled == pytest.approx((100 * low, 100 * high))


def test_a_measure_without_bounds_has_no_interval() -> None:
    found = contrast([0.0] * 9, [1.0] * 9, anytime=True)
    assert found is not None
    assert (found.method, found.difference.low) == ("betting", float("-inf"))
    bounded = contrast([0.0] * 9, [1.0] * 9, anytime=True, most=1.0)
    assert bounded is not None
    assert 0 < bounded.difference.low < bounded.difference.high <= 1


def test_order_and_looks() -> None:
    prompts = made_results(50).prompts
    order = shuffled(prompts, seed=3)
    assert order != prompts
    assert sorted(order, key=prompts.index) == prompts
    assert shuffled(prompts, seed=3) == order != shuffled(prompts, seed=4)
    assert looks(30, batch=8) == [8, 16, 24]
    assert looks(8, batch=8) == []
    assert looks(400, batch=8)[-2:] == [336, 368]


def test_what_decides_must_be_judged(asked: Asked) -> None:
    measures = {
        ("exact_match", "pct_exact"): Measure(about="", better=LESS, share=True),
        ("style", "avg_words"): Measure(about=""),
    }
    check_deciding(["exact-match", "exact-match.pct_exact"], measures)
    with pytest.raises(ConfigError, match=r"decides=style is none of exact-match, exact-match\."):
        check_deciding(["style"], measures)
    with pytest.raises(ConfigError, match="none of the metrics has"):
        check_deciding([], {("style", "avg_words"): Measure(about="")})
    with pytest.raises(ConfigError, match="give sequential=true"):
        asked(decides=["style"])
    with pytest.raises(ConfigError, match="there is one"):
        asked(adapters=[], endpoint="http://127.0.0.1:1/v1", endpoint_model="m", sequential=True)


def test_an_evaluation_stops_early(asked: Asked, tmp_path: Path, adapters: list[Path]) -> None:
    """Replies of the base begin with a word that those of the adapter seldom have."""
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What of {n}?"}) + "\n" for n in range(48)))
    plain: dict[str, Any] = {
        "adapters": [str(adapters[0])],
        "prompts": str(file),
        "metrics": Metrics(chosen={"style": Style()}),
        "batch": 8,
        "generation": Generation(max_new_tokens=4),
    }
    whole = run(asked(**plain))
    letter = max(
        set("".join(said.text for (said,) in whole.replies["base"])),
        key=lambda one: abs(
            sum(
                (one in b.text) - (one in a.text)
                for (b,), (a,) in zip(*whole.replies.values(), strict=True)
            )
        ),
    )
    plain["metrics"] = Metrics(chosen={"style": Style(banned=[letter])})
    out = tmp_path / "out"
    found = run(asked(**plain, sequential=True, decides=["style"], out=str(out)))
    assert found.early is not None
    assert found.early.stopped
    count = len(found.prompts)
    assert count in looks(48, batch=8)
    lines = [prompt.conversation.line for prompt in found.prompts]
    assert lines != sorted(lines)
    told = json.loads((out / "results.json").read_text())
    assert told["sequential"] == {"of": 48, "stopped": True, "seed": 0, "by": ["style"]}
    assert told["prompts"] == count
    (verdict,) = [one for one in told["comparisons"] if one["verdict"]]
    assert verdict["method"] == "betting"
    assert verdict["p_holm"] <= 0.05
    assert f"{count} of 48 prompts, in random order, until the verdict was clear" in page(found)
    assert "allow for that" in page(found)
