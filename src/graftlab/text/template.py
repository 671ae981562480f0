"""Chat templates: where their text comes from, and our own sandboxed rendering.

A Hugging Face tokenizer renders through transformers; bare SentencePiece models render here, in an
environment of the same kind (trimmed blocks, loop controls, `raise_exception`, `strftime_now`,
`tojson`), so that one template file means the same text in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, ModelError, did_you_mean
from graftlab.text.limit import require_finite
from graftlab.types import Message

KNOWN = ("chatml",)
CHATML_END = "<|im_end|>"

_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>")


def template_text(name: str, *, markers: Callable[[str], bool]) -> str:
    """The Jinja source that `model.template` names: a known name or a file.

    `markers(token)` says whether the vocabulary has `token` as one piece: ChatML without its end
    marker falls back to turns that end with the model's own end-of-text token.
    Raises ConfigError when it is neither.
    """
    if name == "chatml":
        variant = "chatml" if markers(CHATML_END) else "chatml-eos"
        return (files("graftlab.text") / "templates" / f"{variant}.jinja").read_text("utf-8")
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text("utf-8")
    raise ConfigError(
        f"model.template={name} is neither a known name ({', '.join(KNOWN)}) nor a file."
        f"{did_you_mean(name, KNOWN)}"
    )


def literal_markers(template: str) -> frozenset[str]:
    """Strings such as <|im_start|> that the template writes around turns."""
    return frozenset(_MARKER.findall(template))


def compile_template(source: str) -> Callable[..., str]:
    """A function of the template's variables that renders it in a sandbox."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    require_finite(source)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source).render
    except TemplateError as error:
        raise ModelError(f"the chat template is not valid Jinja: {error}") from None


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates read them."""
    return [message.as_dict() for message in messages]


def refusal(error: Exception, messages: Sequence[Message]) -> ModelError:
    """A template's own exception, with what to do about it."""
    advice = ""
    if messages and messages[0].role == "system" and "system" in str(error).lower():
        advice = (
            " Put the system text into the first user turn, or use a template that has a system "
            "turn (model.template=FILE)."
        )
    return ModelError(f"the chat template refuses it: {error}.{advice}")
