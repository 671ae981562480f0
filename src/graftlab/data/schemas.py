"""Varied copies of rows whose answers keep to a JSON schema, so that a model reads the schema.

A model that sees one schema a thousand times learns it by heart and does not look at the prompt.
Each copy shows another schema that the same answer keeps to:

    properties in another order      the answer follows, as guided generation will make it do
    optional properties left out     those that the answer does not have
    with or without descriptions     `description`, `title` and `examples`, all or none

Whatever is drawn, the answer is checked against the schema that is shown (answers.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graftlab.data.answers import (
    asked_answers,
    in_order,
    refusal,
    schema_of,
    style_of,
)
from graftlab.data.split import content_hash
from graftlab.errors import require_range
from graftlab.files.reading import load_json
from graftlab.text.json_schema import mismatch
from graftlab.types import Conversation, Message

_NOTES = ("description", "title", "examples")


@dataclass(kw_only=True, slots=True)
class SchemaAugment:
    """`data.schema_augment.copies=2`: training rows with a response format, told in other ways."""

    copies: int = 0
    """Varied copies that stand in for each such row; 0 leaves all rows as they are."""
    reorder: float = 0.5
    """How often the properties of the schema are shuffled, and the answer with them."""
    drop_optional: float = 0.5
    """How often an optional property that the answer does not have is left out."""
    describe: float = 0.5
    """How often descriptions, titles and examples stay."""
    seed: int = 0
    """Seed of all that is drawn; a row's copies do not depend on the other rows."""

    def __post_init__(self) -> None:
        require_range("data.schema_augment.copies", self.copies, least=0)
        for key in ("reorder", "drop_optional", "describe"):
            require_range(f"data.schema_augment.{key}", getattr(self, key), least=0, most=1)


def augment(
    conversations: Iterable[Conversation], spec: SchemaAugment
) -> tuple[list[Conversation], str]:
    """Every row with a response format as `spec.copies` varied ones; and the line for the log."""
    result: list[Conversation] = []
    rows = 0
    for conversation in conversations:
        if not any(asked_answers(conversation.messages)):
            result.append(conversation)
            continue
        rows += 1
        mark = content_hash(conversation.messages)
        for copy in range(spec.copies):
            draw = random.Random(f"{spec.seed} {mark} {copy}")
            messages = varied(conversation.messages, spec, draw)
            result.append(replace(conversation, messages=messages))
    return result, (
        f"data.schema_augment: {rows} rows with a response format became {rows * spec.copies}"
    )


def varied(
    messages: Sequence[Message], spec: SchemaAugment, draw: random.Random
) -> tuple[Message, ...]:
    """One varied copy of a conversation; each answer keeps to the schema that its turn shows."""
    turns = list(messages)
    for asked, answered in asked_answers(messages):
        given, text = schema_of(turns[asked]), turns[answered].content
        change = _Change(
            draw,
            shuffles=draw.random() < spec.reorder and style_of(text) is not None,
            describes=draw.random() < spec.describe,
            drop=spec.drop_optional,
        )
        schema = change.applied(given, [load_json(text)])
        answer, describes = in_order(text, schema), change.describes
        if mismatch(answer, schema) or refusal(answer, schema):
            # Properties may be named in `allOf` or behind a `$ref` as well, in an order of its own.
            schema, describes, answer = given, True, in_order(text, given)
        turns[asked] = _showing(turns[asked], schema, describes)
        turns[answered] = replace(turns[answered], content=answer)
    return tuple(turns)


def _showing(turn: Message, schema: dict[str, Any], describes: bool) -> Message:
    assert turn.response_format is not None
    inner = {**turn.response_format["json_schema"], "schema": schema}
    if not describes:
        inner.pop("description", None)
    return replace(turn, response_format={**turn.response_format, "json_schema": inner})


@dataclass(frozen=True, slots=True)
class _Change:
    """What is drawn for one schema; what is shuffled and left out is drawn as it is applied."""

    draw: random.Random
    shuffles: bool
    describes: bool
    drop: float

    def applied(self, schema: Any, values: Sequence[Any]) -> Any:
        """The schema retold; `values` are all values of the answer that stand in its place.

        Only what `properties` and `items` say is gone into: behind a `$ref` or `anyOf` one place
        may speak for several, and there the schema stays as it is.
        """
        if not isinstance(schema, dict):
            return schema
        made = {key: value for key, value in schema.items() if self.describes or key not in _NOTES}
        properties = schema.get("properties")
        if isinstance(properties, dict):
            objects = [value for value in values if isinstance(value, dict)]
            names = [name for name in properties if not self._left_out(name, schema, objects)]
            if self.shuffles:
                self.draw.shuffle(names)
            made["properties"] = {
                name: self.applied(properties[name], [v[name] for v in objects if name in v])
                for name in names
            }
        if isinstance(schema.get("items"), dict):
            items = [item for value in values if isinstance(value, list) for item in value]
            made["items"] = self.applied(schema["items"], items)
        return made

    def _left_out(
        self, name: str, schema: dict[str, Any], objects: Sequence[dict[str, Any]]
    ) -> bool:
        needed = name in schema.get("required", ()) or any(name in value for value in objects)
        return not needed and self.draw.random() < self.drop
