"""What runtimes make of a conversation: the ids of its prompt, each by its own rules.

None of the runtimes themselves is started here (`llama_cpp` does that). mlx-lm and vLLM leave
template and tokenizer to transformers, which is asked as they ask it, with the tokenizer as an
export holds it. Of llama.cpp and Ollama the rules are written here: what they render with, and
whether BOS comes first.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ModelError
from graftlab.exports.turns import Turns, UnlikeError, turns_of
from graftlab.text.template import functions
from graftlab.types import Message

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

Tools = Sequence[dict[str, Any]]
_PARTS = re.compile(r"""for\s+\w+\s+in\s+\w+(?:\.content\b|\[["']content["']\])""")
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


class Renderer(ABC):
    """How one runtime writes prompts; `by` says what stands for it."""

    name: ClassVar[str]
    by: ClassVar[str]
    otherwise: ClassVar[str] = "llama-server --jinja renders the chat template itself"
    """What to do where it renders something in another way."""
    reads_endings: ClassVar[bool] = False
    """Whether it takes from the model's folder where answers end."""

    @abstractmethod
    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        """The prompt of a conversation that ends with a question or a result.

        Raises ModelError where the runtime could not answer.
        """


class Transformers(Renderer):
    """Whoever calls `apply_chat_template`, as mlx-lm does."""

    name = "mlx"
    by = "transformers, as mlx-lm calls it"
    otherwise = "give it the prompt as ids, which graftlab serve does by itself"
    reads_endings = True

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        text = self._text([message.as_dict() for message in messages], tools)
        found: list[int] = self._inner(text, add_special_tokens=False)["input_ids"]
        return found

    def _text(self, turns: list[dict[str, Any]], tools: Tools) -> str:
        try:
            text: str = self._inner.apply_chat_template(
                turns, tools=functions(tools), add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a program of others
            raise ModelError(f"it fails: {type(error).__name__}: {error}") from error
        return text


class VLLM(Transformers):
    """vLLM's chat endpoint: contents are lists of parts where the template goes through them."""

    name = "vllm"
    by = "transformers, as vLLM calls it"

    def _text(self, turns: list[dict[str, Any]], tools: Tools) -> str:
        if _PARTS.search(str(self._inner.chat_template)):
            turns = [
                {**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns
            ]
        return super()._text(turns, tools)


class LlamaCpp(Renderer):
    """llama-server --jinja: the template as it is, and BOS where the tokenizer puts it first."""

    name = "llama.cpp"
    by = "our model of llama-server --jinja"

    def __init__(self, tokenizer: Tokenizer, *, adds_bos: bool) -> None:
        self._tokenizer, self._adds_bos = tokenizer, adds_bos

    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        day, self._tokenizer.date = self._tokenizer.date, None
        try:
            text = self._tokenizer.render_text(messages, tools=tools, generation_prompt=True)
        finally:
            self._tokenizer.date = day
        return self._encoded(text.removeprefix(self._bos))

    @property
    def _bos(self) -> str:
        return self._tokenizer.bos or "" if self._adds_bos else ""

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode_text([self._bos + text])[0]


class Ollama(LlamaCpp):
    """Ollama with the TEMPLATE of target=ollama."""

    name = "ollama"
    by = "our model of Ollama with the TEMPLATE of target=ollama"

    def __init__(self, tokenizer: Tokenizer, turns: Turns, *, adds_bos: bool) -> None:
        super().__init__(tokenizer, adds_bos=adds_bos)
        self._turns = turns

    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        if tools or any(message.role == "tool" or message.tool_calls for message in messages):
            raise ModelError("its TEMPLATE writes no tools")
        if self._turns.forgets_thoughts:  # it hands them out apart from the answer
            messages = [replace(m, content=_without_thought(m)) for m in messages]
        return self._encoded(self._turns.text(messages))


def _without_thought(message: Message) -> str:
    if message.role != "assistant":
        return message.content
    return _THOUGHT.sub("", message.content, count=1)


def renderers(names: Sequence[str], tokenizer: Tokenizer) -> list[Renderer | tuple[str, str]]:
    """Those that are asked for, in order; (name, reason) where one cannot serve the template."""
    inner = _as_exported(tokenizer)
    adds_bos = inner is not None and _adds_bos(inner)
    made: list[Renderer | tuple[str, str]] = []
    for name in names:
        if name == LlamaCpp.name:
            made.append(LlamaCpp(tokenizer, adds_bos=adds_bos))
        elif name == Ollama.name:
            try:
                turns = turns_of(tokenizer, adds_bos=adds_bos)
                made.append(Ollama(tokenizer, turns, adds_bos=adds_bos))
            except UnlikeError as error:
                made.append((name, f"no TEMPLATE: {error}. {Renderer.otherwise}"))
        elif inner is None:
            made.append((name, "transformers does not load the tokenizer"))
        else:
            made.append((VLLM if name == VLLM.name else Transformers)(inner))
    return made


def _as_exported(tokenizer: Tokenizer) -> Any | None:
    """What transformers makes of the tokenizer that an export holds; None where it loads none."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as place:
        tokenizer.save(Path(place))
        try:
            return AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, KeyError, TypeError):
            return None


def _adds_bos(inner: Any) -> bool:
    """Whether BOS comes before any text, as target=gguf tells llama.cpp."""
    found = inner("a")["input_ids"]
    return inner.bos_token_id is not None and found[:1] == [inner.bos_token_id]
