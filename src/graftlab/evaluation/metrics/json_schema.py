"""`metrics=json-schema`: whether a reply is JSON that keeps to a schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftlab.evaluation.metrics.base import MORE, Measure, Metric
from graftlab.files.reading import load_json
from graftlab.registry import choice

if TYPE_CHECKING:
    from graftlab.evaluation.replies import Case, Judged
    from graftlab.generation.prompts import Prompt

KEY = "metrics.json_schema.schema"
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", re.S | re.I)


@choice("json-schema")
@dataclass(kw_only=True, slots=True)
class JsonSchema(Metric):
    """The reply is JSON, and follows the schema as the package jsonschema sees it."""

    schema: Any = None
    """A JSON schema (a file, or the JSON itself); null takes each prompt's `response_format`."""
    fenced: bool = False
    """Take JSON inside a code block as if it stood alone."""

    def __post_init__(self) -> None:
        if self.schema is not None:
            from graftlab.generation.schema import read_schema

            self.schema = read_schema(self.schema, key=KEY, held=False)

    def measures(self) -> dict[str, Measure]:
        return {
            "pct_valid": Measure(about="replies that keep to the schema", better=MORE, share=True),
            "pct_json": Measure(about="replies that are JSON", share=True),
        }

    def lacks(self, prompt: Prompt) -> str | None:
        if self._schema(prompt) is None:
            return f"no response_format, and {KEY} is not set"
        return None

    def score(self, case: Case) -> Judged:
        text = case.said.text
        if self.fenced and (match := _FENCED.fullmatch(text)) is not None:
            text = match[1]
        try:
            load_json(text)
        except ValueError:
            return {"pct_valid": 0.0, "pct_json": 0.0}
        schema = self._schema(case.prompt)
        assert schema is not None, "checked before"
        return {"pct_valid": float(keeps_to(text, schema)), "pct_json": 1.0}

    def _schema(self, prompt: Prompt) -> dict[str, Any] | None:
        if self.schema is not None:
            return dict(self.schema)
        form = prompt.conversation.messages[-1].response_format
        return None if form is None else dict(form["json_schema"]["schema"])


def keeps_to(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that follows a schema."""
    from graftlab.text.json_schema import mismatch

    try:
        load_json(text)
    except ValueError:
        return False
    return mismatch(text, schema) is None
