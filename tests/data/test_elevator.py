"""`data=elevator` keeps to the voice that its adapter is judged by."""

from __future__ import annotations

import pytest

from graftlab.data.elevator import ElevatorData
from graftlab.errors import ConfigError


def test_every_answer_has_the_voice_and_no_question_is_asked_twice() -> None:
    found = ElevatorData().load(reserved=frozenset())
    assert (len(found.train), len(found.valid)) == (80, 10)
    questions = set()
    for conversation in [*found.train, *found.valid]:
        question, answer = conversation.messages
        assert answer.content.startswith("Going ")
        assert answer.content.endswith(" Mind the doors.")
        questions.add(question.content)
    assert len(questions) == 90


def test_it_takes_no_other_files() -> None:
    with pytest.raises(ConfigError, match="data=jsonl data.train=FILE"):
        ElevatorData(train="mine.jsonl")
