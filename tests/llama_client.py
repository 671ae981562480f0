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
import torch

from afm_adapters import logits
from graftlab.adapters.artifact import find_artifact
from graftlab.models.base import ModelSpec
from graftlab.registry import restore
from graftlab.types import Message

xllamacpp = pytest.importorskip("xllamacpp")
QUESTION = [Message("user", "It's the 12th record: don't play “Größe” 🎵 again,\n  please!")]


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


def prompt_of(run: Path) -> tuple[str, list[int]]:
    """A question in the run's own template, as text and as ids."""
    adapter = find_artifact(str(run)).require_adapter()
    tokenizer = restore(ModelSpec, adapter.run()["model"]).load_tokenizer(adapter.folder)
    text = tokenizer.render_text(QUESTION, generation_prompt=True)
    return text, tokenizer.encode_text([text])[0]


def assert_answers_alike(llama: Llama, run: Path, *, tolerance: float = 2e-4, **body: Any) -> None:
    """The same ids, the same probabilities of the likeliest tokens, the same greedy reply."""
    text, ids = prompt_of(run)
    assert llama.tokens(text) == ids
    reply = llama.reply(ids, 12, ignore_eos=True, **body).ids
    assert likely(run, [*ids, *reply], len(reply)).argmax(-1).tolist() == reply
    # A letter is put in its mouth: of a token that ends within a character it tells nothing.
    (letter,) = llama.tokens("a")
    forced = llama.reply(ids, 3, logit_bias=[[letter, 100.0]], **body)
    assert forced.ids == [letter] * 3
    for ours, theirs in zip(likely(run, [*ids, *forced.ids], 3), forced.likely, strict=True):
        assert theirs is not None
        assert len(theirs) == 20
        for index, logprob in theirs.items():
            assert abs(float(ours[index]) - logprob) < tolerance


def likely(run: Path, ids: list[int], count: int) -> torch.Tensor:
    """Log-probabilities (count, V) in training's code of what stands at the last places."""
    return logits(run, torch.tensor([ids]))[0].log_softmax(-1)[-count - 1 : -1]
