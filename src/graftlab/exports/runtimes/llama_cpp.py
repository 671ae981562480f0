"""llama.cpp's own server, asked over loopback: in this process (the package xllamacpp), or where
that is missing llama-server on the PATH.

What it is asked, and why in this way:

    cache in fp32, no fused attention     else even an fp32 file is off by a hundredth of a nat
    prompts as token ids                  so that its tokenizer is asked for by itself
    a grammar of token ids, `n_probs`     it tells probabilities of what it says alone: so it has to
                                          say the answer, and tells them at every position
    cut at parts of a character           of those it tells none, and no grammar takes them
    samplers: temperature                 an empty list drops the temperature too: it would draw
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.runtimes.base import NotHere, Runtime, Scores
from graftlab.exports.runtimes.llama_process import PROGRAM, serving
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
PART = "\ufffd"
"""What stands in a text for a part of a character."""
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

    def text(self, token: int) -> str:
        """What a token says."""
        return str(self.ask("/detokenize", {"tokens": [token]})["content"])

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


def installed() -> bool:
    """Whether there is a server at all."""
    return _has_wheel() or which(PROGRAM) is not None


def _has_wheel() -> bool:
    return find_spec("xllamacpp") is not None


@contextmanager
def started(file: Path, lora: Path | None = None, *, context: int = CONTEXT) -> Iterator[Api]:
    """A server with a GGUF file. Raises ModelError where it does not start."""
    import torch

    threads = torch.get_num_threads()
    running = _in_this_process if _has_wheel() else serving
    with running(file, lora, context=context, threads=threads) as address:
        yield Api(address)


@contextmanager
def _in_this_process(file: Path, lora: Path | None, *, context: int, threads: int) -> Iterator[str]:
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(file)
    asked.n_ctx, asked.n_parallel, asked.warmup, asked.use_jinja = context, 1, False, True
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    asked.swa_full, asked.fit_params, asked.verbosity = True, False, -1
    asked.cache_ram_mib = 0  # what is kept there does not know whether the adapter was on
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
    if lora is not None:
        asked.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora))]
    try:
        server = xllamacpp.Server(asked)
    except RuntimeError as error:
        raise ModelError(f"llama.cpp does not load {file.name}: {error}") from error
    try:
        yield str(server.listening_address)
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

        own = f"xllamacpp {version('xllamacpp')}" if _has_wheel() else PROGRAM
        return f"llama.cpp ({own})"

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

        told: list[tuple[float, dict[int, float]]] = []
        for start, end in self._pieces(answer):
            before = [*prompt, *answer[:start]]
            found = self._spoken(before, answer[start:end], goes_on=start > 0)
            told += found or [
                self._at([*prompt, *answer[:place]], answer[place], goes_on=place > 0)
                for place in range(start, end)
            ]
        return Scores(torch.tensor([one for one, _ in told]), likely=[likely for _, likely in told])

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

    def _pieces(self, answer: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Parts of an answer, from where to where: the last token of each need not be said."""
        start = 0
        for place, token in enumerate(answer, 1):
            if place == len(answer) or PART in self._api.text(token):
                yield start, place
                start = place

    def _spoken(
        self, before: Sequence[int], said: Sequence[int], *, goes_on: bool
    ) -> list[tuple[float, dict[int, float]]]:
        """What `_at` gives at every place, while all but the last token is said by force.

        [] where llama.cpp does not say it: one of another version, or a token without a text.
        """
        forced = "root ::= " + (" ".join(f"<[{token}]>" for token in said[:-1]) or '""')
        asked = {"n_predict": len(said), "n_probs": LIKELIEST, "grammar": forced}
        try:
            found = self._complete(before, cache_prompt=goes_on, **asked)
        except ModelError:
            return []
        places = found.get("completion_probabilities", [])
        if [place["id"] for place in places[: len(said) - 1]] != list(said[:-1]):
            return []
        if len(places) != len(said):
            return []
        told = [(float(place["logprob"]), _likely(place)) for place in places]
        last = told[-1][1]
        if said[-1] in last:
            told[-1] = last[said[-1]], last
        else:
            told[-1] = self._at([*before, *said[:-1]], said[-1], goes_on=True)
        return told

    def _at(
        self, before: Sequence[int], token: int, *, goes_on: bool
    ) -> tuple[float, dict[int, float]]:
        """Log-probability of a token behind some others, and the likeliest with theirs."""
        likely = told = self._likeliest(before, LIKELIEST, goes_on=goes_on)
        if token not in told:
            told = self._likeliest(before, self._vocabulary(), goes_on=goes_on)
        return told[token], likely

    def _likeliest(self, before: Sequence[int], count: int, *, goes_on: bool) -> dict[int, float]:
        """The likeliest tokens behind some, with their log-probabilities.

        `goes_on` where the request before was of all but the last of them: those are not read anew.
        A plain letter is said, by force: of a part of a character nothing would be told.
        """
        found = self._complete(
            before,
            n_predict=1,
            n_probs=count,
            logit_bias=[[self._letter, FORCED]],
            cache_prompt=goes_on,
        )
        return _likely(found["completion_probabilities"][0])

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


def _likely(place: Mapping[str, Any]) -> dict[int, float]:
    return {int(one["id"]): float(one["logprob"]) for one in place["top_logprobs"]}


def llama_cpp(file: Path, lora: Path | None = None) -> Runtime | NotHere:
    """The runtime of a GGUF file, where there is one."""
    if not installed():
        return NotHere(f"llama.cpp is not installed: {INSTALL}, or {PROGRAM} on the PATH")
    return LlamaCpp(file, lora)
