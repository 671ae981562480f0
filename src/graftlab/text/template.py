"""Chat templates: where their text comes from, and our own sandboxed rendering.

A Hugging Face tokenizer renders through transformers; bare SentencePiece models render here, in an
environment of the same kind (trimmed blocks, loop controls, `generation` blocks, `raise_exception`,
`strftime_now`, `tojson`), so that one template file means the same text in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError, did_you_mean
from graftlab.files.paths import TEMPLATES
from graftlab.text.limit import in_time, require_finite
from graftlab.types import Message

if TYPE_CHECKING:
    from jinja2.ext import Extension

CHATML_END = "<|im_end|>"
DATE_FUNCTION = "strftime_now"
"""What a template calls that writes the date; a tokenizer gives its own (`Tokenizer.date`)."""

_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>")


def template_text(name: str, *, markers: Callable[[str], bool]) -> str:
    """The Jinja source that `model.template` names: a known name or a file.

    `markers(token)` says whether the vocabulary has `token` as one piece: ChatML without its end
    marker falls back to turns that end with the model's own end-of-text token.
    Raises ConfigError when it is neither.
    """
    if name in TEMPLATES:
        variant = "chatml-eos" if name == "chatml" and not markers(CHATML_END) else name
        return (files("graftlab.text") / "templates" / f"{variant}.jinja").read_text("utf-8")
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text("utf-8")
    raise ConfigError(
        f"model.template={name} is neither a known name ({', '.join(TEMPLATES)}) nor a file."
        f"{did_you_mean(name, TEMPLATES)}"
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
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source).render
    except TemplateError as error:
        raise ModelError(f"the chat template is not valid Jinja: {error}") from None


def _generation_tag() -> type[Extension]:
    """`{% generation %}` ... `{% endgeneration %}`, transformers' marks around what an assistant
    wrote: a block whose text is that of its content. The mask is found without them.
    """
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

        def _content(self, caller: Callable[[], str]) -> str:
            return caller()

    return Generation


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' filter: characters as they are, and no escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def rendered(
    render: Callable[[list[dict[str, Any]]], Any],
    messages: Sequence[Message],
    *,
    text_arguments: bool = False,
) -> str:
    """The text that `render` makes of `messages` as templates read them.

    With `text_arguments` those of calls are JSON in a text, not objects. A template is a program of
    others, which may raise anything. Raises ModelError for all of it.
    """
    turns = [message.as_dict() for message in messages]
    return _rendered(render, _with_text_arguments(turns) if text_arguments else turns, messages)


def wants_text_arguments(render: Callable[[list[dict[str, Any]]], Any]) -> bool:
    """Whether a template joins the arguments of calls to a text, or writes them as Python does.

    Such templates expect JSON in a text in place of an object.
    """
    function = {"name": "look_up", "arguments": {"graftlab": "probe"}}
    call = {"id": "graftlab1", "type": "function", "function": function}
    messages = [Message("user", "Hi"), Message("assistant", "", tool_calls=(call,))]
    try:
        return str(function["arguments"]) in rendered(render, messages)
    except ModelError:
        pass
    try:
        rendered(render, messages, text_arguments=True)
    except ModelError:
        return False  # it takes neither; what it says of real calls is told
    return True


def _with_text_arguments(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**turn, "tool_calls": [_text_call(call) for call in turn["tool_calls"]]}
        if "tool_calls" in turn
        else turn
        for turn in turns
    ]


def _text_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _rendered(
    render: Callable[[list[dict[str, Any]]], Any],
    turns: list[dict[str, Any]],
    messages: Sequence[Message],
) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        with in_time():
            text = render(turns)
    except TemplateSyntaxError as error:
        raise ModelError(f"the chat template is not valid Jinja: {error}") from None
    except ModelError:  # its time is over
        raise
    except Exception as error:
        if type(error) is TemplateError:  # by its own `raise_exception`
            raise refusal(error, messages) from None
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the chat template fails: {type(error).__name__}{reason and ': '}{reason}"
        ) from error
    assert isinstance(text, str), "templates render text"
    return text


def functions(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Tools as templates read them, in OpenAI's form; None where there are none.

    Data in ShareGPT's keys has the functions alone: {"name", "description", "parameters"}.
    """
    bare = {"name", "parameters"}
    return [
        {"type": "function", "function": tool} if bare <= tool.keys() else tool for tool in tools
    ] or None


def refusal(error: Exception, messages: Sequence[Message]) -> ModelError:
    """A template's own exception, with what to do about it."""
    advice = ""
    if messages and messages[0].role == "system" and "system" in str(error).lower():
        advice = (
            " Put the system text into the first user turn, or use a template that has a system "
            "turn (model.template=FILE)."
        )
    return ModelError(f"the chat template refuses it: {error}.{advice}")
