"""llama.cpp itself, asked what it makes of conversations: its own template engine and tokenizer.

The wheel of xllamacpp holds its server. It is given a toy of one narrow layer with the tokenizer
and chat template of the model, as target=gguf writes them, so no weight of the model is read.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from graftlab.errors import ModelError
from graftlab.exports.runtimes import Runtime, Tools
from graftlab.files.reading import load_json
from graftlab.text.template import functions

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Message

WIDTH = 32
REFUSED = (
    "llama-server does not start with this chat template, as it finds no rule for its tool calls. "
    "Another one helps: model.template=FILE"
)
QUIET = 0
"""Of llama.cpp's log: errors alone."""


class LlamaCppServer(Runtime):
    """`llama-server --jinja`, listening on the loopback."""

    name = "llama.cpp"
    by = "llama.cpp's own server"

    def __init__(self, address: str) -> None:
        self._address = address
        direct = urllib.request.ProxyHandler({})  # it is this machine's own
        self._open = urllib.request.build_opener(direct).open

    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        body: dict[str, Any] = {"messages": [_as_client(message) for message in messages]}
        if tools:
            body["tools"] = functions(tools)
        text = self._ask("/apply-template", body)["prompt"]
        asked = {"content": text, "add_special": True, "parse_special": True}
        found: list[int] = self._ask("/tokenize", asked)["tokens"]
        return found

    def _ask(self, route: str, body: dict[str, Any]) -> Any:
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + route, json.dumps(body).encode(), kind)
        try:
            with self._open(request) as answer:
                return load_json(answer.read())
        except HTTPError as error:
            told = load_json(error.read() or b"{}").get("error", {}).get("message", "")
            raise ModelError(f"it refuses them: {' '.join(told.split())[:200]}") from error


def _as_client(message: Message) -> dict[str, Any]:
    """A turn as clients of the OpenAI API send it: arguments of calls are JSON in a text."""
    turn = message.as_dict()
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [
            {
                **call,
                "function": {
                    **call["function"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for call in calls
        ]
    return turn


@contextmanager
def served(tokenizer: Tokenizer) -> Iterator[LlamaCppServer | None]:
    """The server with a toy of this tokenizer.

    None where it is not installed, and for a tokenizer that target=gguf does not write. Raises
    ModelError for a template that it does not start with.
    """
    with TemporaryDirectory() as place:
        file = Path(place) / "toy.gguf"
        if not _write_toy(file, tokenizer):
            yield None
            return
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = 64, 1, False
        parameters.use_jinja, parameters.verbosity = True, QUIET
        parameters.fit_params = False
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError as error:  # with a toy that is sound, for it
            raise ModelError(REFUSED) from error
        try:
            yield LlamaCppServer(server.listening_address)
        finally:
            del server


def _write_toy(file: Path, tokenizer: Tokenizer) -> bool:
    """Whether there is a toy in `file`."""
    if find_spec("xllamacpp") is None or find_spec("gguf") is None:
        return False
    import numpy as np

    from graftlab.exports.gguf.vocabulary import vocabulary
    from graftlab.exports.gguf.writing import Entry, write_gguf

    try:
        told = vocabulary(tokenizer, rows=tokenizer.vocab_size, name="the model")
    except ModelError:
        return False
    rows = len(told["tokenizer.ggml.tokens"])
    sizes = {
        "block_count": 1, "context_length": 64, "embedding_length": WIDTH,
        "feed_forward_length": WIDTH, "attention.head_count": 1, "attention.head_count_kv": 1,
        "vocab_size": rows, "rope.dimension_count": WIDTH,
    }  # fmt: skip
    metadata: dict[str, Any] = {"general.architecture": "llama", "general.type": "model"}
    metadata |= {f"llama.{key}": value for key, value in sizes.items()}
    metadata["llama.attention.layer_norm_rms_epsilon"] = 1e-5
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, WIDTH)}
    shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in square}
    vectors = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    shapes |= {f"{name}.weight": (WIDTH,) for name in vectors}
    entries = {name: Entry("F32", shape) for name, shape in shapes.items()}
    write_gguf(file, metadata | told, entries, (np.zeros(s, np.float32) for s in shapes.values()))
    return True
