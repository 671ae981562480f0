"""llama.cpp itself, in this process: what it answers, and how likely it takes each next token.

Its server listens on the loopback alone. Keys and values are kept in fp32 and attention is not the
fused one, so that what is left of a difference is how sums are rounded.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

xllamacpp = pytest.importorskip("xllamacpp")


@dataclass(frozen=True)
class Llama:
    """A model that is served."""

    address: str

    def ask(self, route: str, body: dict[str, Any]) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + route, data, kind)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        """Ids of a text in which markers are tokens."""
        asked = {"content": text, "add_special": False, "parse_special": True}
        found: list[int] = self.ask("/tokenize", asked)["tokens"]
        return found

    def reply(self, ids: Sequence[int], count: int, **body: Any) -> Reply:
        """The likeliest next tokens; fewer where it ends the reply."""
        asked = {
            "prompt": list(ids),
            "n_predict": count,
            "n_probs": 20,
            "temperature": 0,
            "samplers": ["temperature"],  # an empty list would leave out the temperature too
            "cache_prompt": False,
            "return_tokens": True,
            **body,
        }
        found = self.ask("/completion", asked)
        told = iter(found.get("completion_probabilities", []))
        entry, likely = next(told, None), []
        for token in found["tokens"]:
            top = None
            if entry is not None and entry["id"] == token:
                top = {int(one["id"]): float(one["logprob"]) for one in entry["top_logprobs"]}
                entry = next(told, None)
            likely.append(top)
        assert entry is None, "probabilities of other tokens than it has answered"
        return Reply(found["tokens"], likely)


@dataclass(frozen=True)
class Reply:
    """Tokens, and for each the likeliest ones with their log-probabilities.

    The server tells none where a token ends within a character: None stands there.
    """

    ids: list[int]
    likely: list[dict[int, float] | None]


@contextmanager
def serving(model: Path, lora: Path | None = None) -> Iterator[Llama]:
    """`model`, with the adapter `lora` where one is given."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 512, 1, False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.fit_params = False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    if lora is not None:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora))]
    server = xllamacpp.Server(parameters)
    try:
        yield Llama(server.listening_address)
    finally:
        del server
