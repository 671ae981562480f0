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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.runtimes.base import NotHere, Runtime, Scores
from graftlab.exports.runtimes.llama_api import INSTALL, Api, Found, tokens_of
from graftlab.exports.runtimes.llama_process import PROGRAM, serving

if TYPE_CHECKING:
    from graftlab.types import Message

CONTEXT = 2048
"""Tokens of a prompt with its reply."""
LIKELIEST = 128
"""Tokens that are told at each position."""
PART = "\ufffd"
"""What stands in a text for a part of a character."""
FORCED = 1e6
"""What is added to the logit of a token that must be said."""


def installed() -> bool:
    """Whether there is a server at all."""
    return _has_wheel() or which(PROGRAM) is not None


def _has_wheel() -> bool:
    return find_spec("xllamacpp") is not None


@contextmanager
def started(
    file: Path, lora: Path | None = None, template: Path | None = None, *, context: int = CONTEXT
) -> Iterator[Api]:
    """A server with a GGUF file, and a chat template in place of its own where one is given.

    Raises ModelError where it does not start.
    """
    import torch

    threads = torch.get_num_threads()
    running = _in_this_process if _has_wheel() else serving
    with running(file, lora, template, context=context, threads=threads) as address:
        yield Api(address)


@contextmanager
def _in_this_process(
    file: Path, lora: Path | None, template: Path | None, *, context: int, threads: int
) -> Iterator[str]:
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(file)
    asked.n_ctx, asked.n_parallel, asked.warmup, asked.use_jinja = context, 1, False, True
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    asked.swa_full, asked.fit_params, asked.verbosity = True, False, -1
    asked.cache_ram_mib = 0  # what is kept there does not know whether the adapter was on
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
    if template is not None:
        asked.chat_template = template.read_text(encoding="utf-8")
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
    """A GGUF file in llama.cpp, with an adapter and a chat template of its own if given."""

    file: Path
    lora: Path | None = None
    template: Path | None = None
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
            with started(self.file, self.lora, self.template) as self._opened:
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
        return self._complete(prompt, tokens_of, n_predict=most)

    def ends_at(self, token: int) -> bool:
        forced = {"n_predict": 2, "logit_bias": [[token, FORCED]]}
        return self._complete([token], lambda told: bool(told["stop_type"] == "eos"), **forced)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        self._without = True
        try:
            yield self.lora is not None
        finally:
            self._without = False

    def _vocabulary(self) -> int:
        return self._api.ask("/v1/models", None, lambda m: int(m["data"][0]["meta"]["n_vocab"]))

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
            found = self._complete(before, _places, cache_prompt=goes_on, **asked)
        except ModelError:
            return []
        if [token for token, *_ in found[:-1]] != list(said[:-1]) or len(found) != len(said):
            return []
        told = [(chosen, likely) for _, chosen, likely in found]
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
        if token not in told:
            raise ModelError(f"llama.cpp tells no probability of the token {token}.")
        return told[token], likely

    def _likeliest(self, before: Sequence[int], count: int, *, goes_on: bool) -> dict[int, float]:
        """The likeliest tokens behind some, with their log-probabilities.

        `goes_on` where the request before was of all but the last of them: those are not read anew.
        A plain letter is said, by force: of a part of a character nothing would be told.
        """
        return self._complete(
            before,
            lambda told: _likely(told["completion_probabilities"][0]),
            n_predict=1,
            n_probs=count,
            logit_bias=[[self._letter, FORCED]],
            cache_prompt=goes_on,
        )

    def _complete(self, before: Sequence[int], take: Callable[[Any], Found], **body: Any) -> Found:
        asked = {
            "prompt": list(before),
            "temperature": 0,
            "samplers": ["temperature"],
            "cache_prompt": False,
            "return_tokens": True,
            **({"lora": [{"id": 0, "scale": 0.0}]} if self._without and self.lora else {}),
            **body,
        }
        return self._api.ask("/completion", asked, take)


def _places(told: Any) -> list[tuple[int, float, dict[int, float]]]:
    """Token, its log-probability and the likeliest there, for each that was said."""
    places = told.get("completion_probabilities", [])
    return [(int(one["id"]), float(one["logprob"]), _likely(one)) for one in places]


def _likely(place: Mapping[str, Any]) -> dict[int, float]:
    return {int(one["id"]): float(one["logprob"]) for one in place["top_logprobs"]}


def llama_cpp(
    file: Path, lora: Path | None = None, template: Path | None = None
) -> Runtime | NotHere:
    """The runtime of a GGUF file, where there is one."""
    if not installed():
        return NotHere(f"llama.cpp is not installed: {INSTALL}, or {PROGRAM} on the PATH")
    return LlamaCpp(file, lora, template)
