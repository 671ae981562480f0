"""Samples: what is written of them, and whose fault a reply that repeats itself is."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftlab.generation.sampling import Generation
from graftlab.training.callbacks.watchers import Sampler
from graftlab.training.samples import Replies, SampleBook
from graftlab.training.watch import Callbacks
from graftlab.types import Conversation, Message

LOOP = "Vac " * 40
PROSE = "The harbour wakes before the gulls do, and the ferry leaves while it is still dark."


class Speaker:
    """An adapter whose replies, and those of its base, are given."""

    answering = nullcontext

    def __init__(self, base: str, adapter: str) -> None:
        self.says, self.words = adapter, (base, adapter)

    @contextmanager
    def disabled(self):
        self.says = self.words[0]
        yield
        self.says = self.words[1]


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a sampler of two given replies; returns it with the lines that it warns of."""
    from graftlab.training import samples

    def make(base: str, adapter: str, *, precision: str = "fp32") -> tuple[Sampler, list[str]]:
        speaker, told = Speaker(base, adapter), list[str]()
        speaker.base = speaker  # type: ignore[attr-defined]
        monkeypatch.setattr(samples, "generate", lambda who, *_: SimpleNamespace(text=who.says))
        turns = (Message("user", "What now?"), Message("assistant", "Wait for the tide."))
        held: Any = speaker
        book = SampleBook(
            held,
            None,  # type: ignore[arg-type]
            [Conversation(turns)],
            generation=Generation(),
            replies=Replies(nullcontext),
        )
        recorder: Any = SimpleNamespace(plan=SimpleNamespace(steps_per_epoch=3))
        made = Sampler(
            recorder,
            Callbacks(),
            book=book,
            precision=precision,
            warn=told.append,
            states={},
        )
        return made, told

    return make


def test_a_loop_that_training_brought_is_told_with_advice_for_the_run(sampler: Any) -> None:
    for precision, advised in (("fp32", False), ("bf16-mixed", False), ("bf16", True)):
        made, told = sampler(PROSE, LOOP, precision=precision)
        assert made.draw(3) is None  # said, and no reason to end the run
        assert told[0].startswith("step 3: 97% of a sampled reply repeats itself")
        assert "Lower lr" in told[0]
        assert ("bf16-mixed" in told[0]) == advised


def test_a_loop_before_the_first_epoch_has_ended_may_pass(sampler: Any) -> None:
    made, told = sampler(PROSE, LOOP)
    made.draw(2)
    assert "may pass with training" in told[0]
    assert "fewer epochs" not in told[0]


def test_a_loop_of_the_base_is_no_fault_of_the_adapter(sampler: Any) -> None:
    made, told = sampler(LOOP, LOOP)
    assert made.draw(1) is None
    assert made.draw(2) is None
    assert len(told) == 1
    assert "no fault of the adapter" in told[0]
    assert "lr" not in told[0]
    made, told = sampler(LOOP, PROSE)
    assert made.draw(1) is None
    assert told == []


def test_the_reference_stands_beside_both_replies(sampler: Any, tmp_path: Path, capsys) -> None:
    from graftlab.tracking.result import show_result
    from run_folders import result_of

    made, _ = sampler("Base says.", "Adapter says.")
    made.draw(1)
    made.book.write(tmp_path / "samples.md")
    text = (tmp_path / "samples.md").read_text(encoding="utf-8")
    found = [text.index(words) for words in ("Base says.", "Adapter says.", "Wait for the tide.")]
    assert found == sorted(found)
    show_result(result_of(1.0), made.book.last(), [])
    screen = capsys.readouterr().out
    assert "expected" in screen
    assert "Wait for the tide." in screen
