"""What an export is asked: held-out conversations of the run, or a few of our own.

ids     p p p p p p | a a a a e ...
        prompt        the answer that is known, up to the token that ends it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from graftlab.data.jsonl import JsonlData
from graftlab.data.source import DataSpec
from graftlab.errors import GraftlabError
from graftlab.files.paths import relocated
from graftlab.registry import restore
from graftlab.types import Conversation, Message

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.text.tokenizer import Tokenizer

LONGEST = 1024
"""Tokens of a prompt and its answer; longer rows are passed over."""
CONVERSATIONS = (
    ("Which instrument opens the record?", "A clarinet, alone, for the first eleven bars."),
    ("Count from one to twelve.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 12."),
    (
        "Write a function that returns the larger of two numbers.",
        "def larger(a, b):\n    return a if a > b else b\n",
    ),
    (
        "Why does the sky turn red in the evening?",
        "The light of a low sun goes a long way through the air. Blue is scattered out of it, and "
        "what reaches the eye is mostly red.",
    ),
)
"""What is asked and answered where nothing of the run is at hand, in the words of no data set."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question with the answer that is known."""

    where: str
    messages: tuple[Message, ...]
    """Up to the answer."""
    tools: tuple[dict[str, Any], ...]
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is asked, and where it is from."""

    rows: list[Row]
    origin: str
    """For people, such as `held-out rows of the run`."""
    why: str = ""
    """Why they are not the run's own."""


def rows_for(trained: TrainedModel, tokenizer: Tokenizer, *, count: int, tokens: int) -> Rows:
    """At most `count` rows, their answers at most so many `tokens`, as training renders them."""
    try:
        found = list(islice(_rows(_held_out(trained, tokenizer), tokenizer, tokens), count))
        why = "none of its held-out rows fits"
    except (GraftlabError, OSError) as error:
        found, why = [], str(error).partition("\n")[0].rstrip(".: ")
    if found:
        return Rows(found, "held-out rows of the run")
    ours = [
        Conversation((Message("user", asked), Message("assistant", said)), "conversation", number)
        for number, (asked, said) in enumerate(CONVERSATIONS, 1)
    ]
    rows = list(islice(_rows(ours, tokenizer, tokens), count))
    return Rows(rows, "conversations of graftlab's own", why)


def training_rows(trained: TrainedModel, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """The ids of at most `count` training rows of the run, evenly spread over them.

    As training renders them, the first `LONGEST` tokens of each. Raises GraftlabError where they
    are not known or not there.
    """
    rows = data_of(trained).load(reserved=tokenizer.reserved).train
    count = min(count, len(rows))
    if not count:
        raise GraftlabError("the run has none")
    chosen = [rows[place * len(rows) // count] for place in range(count)]
    ids = (tokenizer.render(r.messages, tools=r.tools, generation_prompt=False) for r in chosen)
    return [one[:LONGEST] for one in ids]


def data_of(trained: TrainedModel) -> DataSpec:
    """What the run was trained and validated on. Raises GraftlabError where that is not known."""
    source = trained.adapter
    config = source.run() if source is not None else {}
    if source is None or not config.get("data"):
        raise GraftlabError("the adapter does not say what it was trained on")
    return restore(DataSpec, relocated(config, source.folder.parent)["data"], path="data")


def _held_out(trained: TrainedModel, tokenizer: Tokenizer) -> list[Conversation]:
    """What the run validated on. Raises GraftlabError where that is not known or not there."""
    spec, reserved = data_of(trained), tokenizer.reserved
    _, valid = spec.files()
    if not valid:
        return spec.load(reserved=reserved).valid
    alone = JsonlData(
        train=[str(file) for file in valid],
        valid_fraction=0.0,
        system_prompt=spec.system_prompt,
        default_instruction=spec.default_instruction,
        on_invalid="skip",
        preference=spec.preference,
        ignore_keys=spec.ignore_keys,
        limit=spec.limit,
    )
    return alone.load(reserved=reserved).train


def _rows(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, tokens: int
) -> Iterator[Row]:
    """Those whose answer follows their prompt token by token, in as few as `LONGEST`."""
    for one in conversations:
        asked = one.without_last_answer()
        if one.expected is None or len(one.messages) == len(asked.messages):
            continue
        answered = one.messages[: len(asked.messages) + 1]
        prompt = tokenizer.render(asked.messages, tools=one.tools, generation_prompt=True)
        whole = tokenizer.render(answered, tools=one.tools, generation_prompt=False)
        answer = _until_stop(whole[len(prompt) :], tokenizer.stop_ids)[:tokens]
        if answer and whole[: len(prompt)] == prompt and len(prompt) + tokens <= LONGEST:
            where = f"{one.source.rpartition('/')[2]}:{one.index or one.line}"
            yield Row(where, asked.messages, one.tools, prompt, answer)


def _until_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids, 1) if token in stops), len(ids))
    return ids[:end]
