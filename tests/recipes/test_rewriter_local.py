"""The local rewriter: a loaded model asked in its frame, batch by batch, and what is no answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError
from graftlab.generation import decode
from graftlab.generation.decode import Reply
from graftlab.recipes.rewriters.base import Miss
from graftlab.recipes.rewriters.local import LocalRewriter
from graftlab.types import Conversation


def test_texts_are_asked_in_their_frame_and_answered_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[list[Conversation]] = []

    def replies(
        base: Any, tokenizer: Any, asked: Sequence[Conversation], how: Any, *, batch: int
    ) -> list[Reply]:
        assert batch == 2
        batches.append(list(asked))
        assert (how.max_new_tokens, how.temperature) == (7, 0.5)
        said = [conversation.messages[-1].content.split()[-1] for conversation in asked]
        return [Reply(f" {word} ", 1, word != "long", 0.1) for word in said]

    monkeypatch.setattr(decode, "generate_batch", replies)
    spec = LocalRewriter(model="tiny", batch=2, max_tokens=7, temperature=0.5)
    with spec.opened() as rewrite:
        found = rewrite(["a", "long", "c"])
    assert found == ["a", Miss("answer cut off", "at rewriter.max_tokens"), "c"]
    assert [len(batch) for batch in batches] == [3]
    system, user = batches[0][0].messages
    assert "careful editor" in system.content
    assert user.content.endswith("PASSAGE:\na")


def test_the_model_itself_answers() -> None:
    spec = LocalRewriter(model="tiny", max_tokens=4)
    with spec.opened() as rewrite:
        first = rewrite(["The dogs bark.", "A ship came."])
        assert rewrite(["The dogs bark.", "A ship came."]) == first
    assert len(first) == 2
    assert all(isinstance(found, str | Miss) for found in first)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for wrong, says in (
        (LocalRewriter(), "rewriter=local needs rewriter.model=DIR"),
        (LocalRewriter(model=str(tmp_path / "gone")), "rewriter.model=.*no such folder"),
        (LocalRewriter(model="tiny", prompt="nowhere"), "rewriter.prompt: frame=nowhere"),
    ):
        with pytest.raises(ConfigError, match=says):
            wrong.check()
    with pytest.raises(ConfigError, match=r"rewriter\.batch"):
        LocalRewriter(model="tiny", batch=0)
