"""llama.cpp's own server, in this process (the package xllamacpp), asked over loopback.

What it is asked, and why in this way:

    cache in fp32, no fused attention     else even an fp32 file is off by a hundredth of a nat
    prompts as token ids                  so that its tokenizer is asked for by itself
    one request a position, `n_probs`     it tells probabilities of what it says alone
    a plain letter is forced to be said   of a token that ends within a character it tells none
    samplers: temperature                 an empty list drops the temperature too: it would draw
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.runtimes.base import NotHere, Runtime, Scores
from graftlab.files.reading import UnreadableError, load_json
from graftlab.text.template import functions

if TYPE_CHECKING:
    from graftlab.types import Message

INSTALL = "pip install 'graftlab[gguf]'"
CONTEXT = 2048
"""Tokens of a prompt with its reply."""
LIKELIEST = 128
"""Tokens that are told at each position."""
TIMEOUT = 600.0
"""Seconds that an answer may take: one token of a large model on a slow disk."""
FORCED = 1e6
"""What is added to the logit of a token that must be said."""


class Api:
    """Routes of a llama-server on the loopback."""

    def __init__(self, address: str) -> None:
        self._address = address
        direct = urllib.request.ProxyHandler({})  # it is this machine's own
        self._open = urllib.request.build_opener(direct).open

    def ask(self, route: str, body: dict[str, Any] | None) -> Any:
        """What a route answers; without a body it is a GET. Raises ModelError."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + route, data, kind)
        try:
            with self._open(request, timeout=TIMEOUT) as answer:
                return load_json(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            with suppress(UnreadableError):
                told = load_json(told)["error"]["message"]
            said = " ".join(str(told).split())[:300]
            raise ModelError(f"llama.cpp refuses {route}: {said}") from error

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Its ids of a text, with BOS where it puts one and `special`."""
        body = {"content": text, "add_special": special, "parse_special": True}
        return [int(token) for token in self.ask("/tokenize", body)["tokens"]]

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Its ids of a conversation that asks for an answer, by its own template engine."""
        body: dict[str, Any] = {"messages": [_as_client(message) for message in messages]}
        if tools:
            body["tools"] = functions(tools)
        return self.tokens(self.ask("/apply-template", body)["prompt"], special=True)


def _as_client(message: Message) -> dict[str, Any]:
    """A turn as clients of the OpenAI API send it: arguments of calls are JSON in a text."""
    turn = message.as_dict()
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [{**call, "function": _in_text(call["function"])} for call in calls]
    return turn


def _in_text(function: dict[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


@contextmanager
def started(file: Path, lora: Path | None = None, *, context: int = CONTEXT) -> Iterator[Api]:
    """A server with a GGUF file, in this process. Raises ModelError where it does not start."""
    import torch
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(file)
    asked.n_ctx, asked.n_parallel, asked.warmup, asked.use_jinja = context, 1, False, True
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    asked.swa_full, asked.fit_params, asked.verbosity = True, False, -1
    asked.cache_ram_mib = 0  # what is kept there does not know whether the adapter was on
    threads = torch.get_num_threads()
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
    if lora is not None:
        asked.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora))]
    try:
        server = xllamacpp.Server(asked)
    except RuntimeError as error:
        raise ModelError(f"llama.cpp does not load {file.name}: {error}") from error
    try:
        yield Api(server.listening_address)
    finally:
        del server


@dataclass
class LlamaCpp(Runtime):
    """A GGUF file in llama.cpp, with an adapter of GGUF where one is given."""

    file: Path
    lora: Path | None = None
    ends_replies: bool = True
    _opened: Api | None = field(default=None, init=False, repr=False)
    _letter: int = field(default=0, init=False, repr=False)
    _without: bool = field(default=False, init=False, repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        from importlib.metadata import version

        return f"llama.cpp (xllamacpp {version('xllamacpp')})"

    @property
    def _api(self) -> Api:
        assert self._opened is not None, "asked inside `opened` alone"
        return self._opened

    @contextmanager
    def opened(self) -> Iterator[None]:
        try:
            with started(self.file, self.lora) as self._opened:
                self._letter = self._api.tokens("a", special=False)[-1]
                yield
        finally:
            self._opened = None

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        return self._api.prompt(messages, tools)

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Scores:
        import torch

        chosen, likely = [], []
        for place, token in enumerate(answer):
            before, goes_on = [*prompt, *answer[:place]], place > 0
            told = self._likeliest(before, LIKELIEST, goes_on=goes_on)
            likely.append(told)
            if token not in told:
                told = self._likeliest(before, self._vocabulary(), goes_on=goes_on)
            chosen.append(told[token])
        return Scores(torch.tensor(chosen), likely=likely)

    def reply(self, prompt: Sequence[int], most: int) -> list[int]:
        return [int(token) for token in self._complete(prompt, n_predict=most)["tokens"]]

    def ends_at(self, token: int) -> bool:
        found = self._complete([token], n_predict=2, logit_bias=[[token, FORCED]])
        return str(found["stop_type"]) == "eos"

    @contextmanager
    def alone(self) -> Iterator[bool]:
        self._without = True
        try:
            yield self.lora is not None
        finally:
            self._without = False

    def _vocabulary(self) -> int:
        return int(self._api.ask("/v1/models", None)["data"][0]["meta"]["n_vocab"])

    def _likeliest(self, before: Sequence[int], count: int, *, goes_on: bool) -> dict[int, float]:
        """The likeliest tokens behind some, with their log-probabilities.

        `goes_on` where the request before was of all but the last of them: those are not read anew.
        """
        found = self._complete(
            before,
            n_predict=1,
            n_probs=count,
            logit_bias=[[self._letter, FORCED]],
            cache_prompt=goes_on,
        )
        told = found["completion_probabilities"][0]["top_logprobs"]
        return {int(one["id"]): float(one["logprob"]) for one in told}

    def _complete(self, before: Sequence[int], **body: Any) -> Any:
        asked = {
            "prompt": list(before),
            "temperature": 0,
            "samplers": ["temperature"],
            "cache_prompt": False,
            "return_tokens": True,
            **({"lora": [{"id": 0, "scale": 0.0}]} if self._without and self.lora else {}),
            **body,
        }
        return self._api.ask("/completion", asked)


def llama_cpp(file: Path, lora: Path | None = None) -> Runtime | NotHere:
    """The runtime of a GGUF file, where xllamacpp is installed."""
    from importlib.util import find_spec

    if find_spec("xllamacpp") is None:
        return NotHere(f"llama.cpp is not installed: {INSTALL}")
    return LlamaCpp(file, lora)
