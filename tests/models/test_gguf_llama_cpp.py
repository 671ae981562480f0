"""Real models in llama.cpp's own hands: the same tokens, and the same most likely next ones.

Needs `pip install xllamacpp` and models that were fetched (`graftlab.models.gguf.packages`) into
the cache that GRAFTLAB_REAL_MODELS names; left out otherwise.
"""

from __future__ import annotations

import json
import os
import random
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gguf_files import gguf
from graftlab.models.gguf import GGUFModel
from graftlab.models.gguf.file import read_gguf
from graftlab.models.gguf.packages import PACKAGES
from graftlab.models.gguf.pretokenizers import SPLITTINGS
from graftlab.models.gguf.vocabulary import write_tokenizer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture(params=sorted(PACKAGES))
def path(request: pytest.FixtureRequest) -> Path:
    cache = os.environ.get("GRAFTLAB_REAL_MODELS")
    file = Path(cache or "") / "models" / PACKAGES[request.param].file
    if cache is None or not file.is_file():
        pytest.skip(f"{request.param} is not in GRAFTLAB_REAL_MODELS")
    return file


def server(path: Path) -> Ask:
    xllamacpp = pytest.importorskip("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 512, 1, False
    running = xllamacpp.Server(parameters)

    def ask(route: str, body: dict[str, Any]) -> dict[str, Any]:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(running.listening_address + route, data, kind)
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    return ask


def texts() -> Iterator[str]:
    """Prose, code, many scripts, spaces and markers, and characters drawn at random."""
    draw = random.Random(0)
    for name in ("README.md", "docs/LOG.md", "src/graftlab/models/hf.py"):
        text = (ROOT / name).read_text()
        for length in (5, 50, 400, 1500) * 6:
            start = draw.randrange(len(text) - length)
            yield text[start : start + length]
    yield from (
        "Größe, naïve, déjà-vu — “quotes” … 漢字とかな 한국어 Привет мир مرحبا שלום हिन्दी ไทย",
        "e\u0301 \u00a0nbsp\u2003em\tTab\r\nCRLF\n\n\n\n  \n x  ",
        "1234567 ١٢٣ ½ Ⅷ 3.14159 1_000 DON'T don't I'LL we'Re 's 'S ''",
        "🎵🎶👩‍👩‍👧 🇩🇪 ✊🏽 \x00\x01\x7f HelloWorld snake_case",
        "<|im_start|>user\nHi<|im_end|>\n<start_of_turn>user\nHi<end_of_turn>\n",
        "<bos> <unk> <0x0A> ▁▁",
    )
    ranges = ((32, 127), (32, 127), (0xA0, 0x2FFF), (0x3000, 0xD7FF), (0x1F300, 0x1FAFF))
    for _ in range(100):
        length = draw.randrange(1, 40)
        yield "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(length))


def assert_same_tokens(path: Path, folder: Path) -> None:
    from tokenizers import Tokenizer

    ask = server(path)
    write_tokenizer(read_gguf(path), folder)
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in texts():
        asked = {"content": text, "add_special": False, "parse_special": True}
        wanted = ask("/tokenize", asked)["tokens"]
        assert made.encode(text, add_special_tokens=False).ids == wanted, text


def test_tokens_are_those_of_llama_cpp(path: Path, tmp_path: Path) -> None:
    assert_same_tokens(path, tmp_path)


@pytest.mark.parametrize("name", sorted({*SPLITTINGS} - {"llama-v3"}))
@pytest.mark.parametrize("path", ["smollm2-135m-instruct"], indirect=True)
def test_text_is_split_as_llama_cpp_splits_it(path: Path, tmp_path: Path, name: str) -> None:
    """SmolLM2's vocabulary in a toy model, under every name that is known."""
    toy = vocabulary_alone(path, tmp_path / "toy.gguf", pre=name)
    assert_same_tokens(toy, tmp_path)


def test_likely_tokens_are_those_of_llama_cpp(path: Path) -> None:
    """llama.cpp rounds activations to 8 bits for packed products, so logits agree roughly."""
    ask, spec = server(path), GGUFModel(path=str(path), template="chatml")
    tokenizer = spec.load_tokenizer()
    base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
    for text in ("The capital of France is", "Once upon a time there was a little"):
        (ids,) = tokenizer.encode_text([text])
        start = read_gguf(path).metadata["tokenizer.ggml.bos_token_id"]
        ids = [start, *ids]
        asked = {"prompt": ids, "n_predict": 1, "n_probs": 10, "temperature": 0}
        told = ask("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        own = base.own_logits(torch.tensor([ids]))[0, -1].log_softmax(-1)
        likely = {entry["id"]: entry["logprob"] for entry in told}
        assert int(own.argmax()) in list(likely)[:2]
        for index, logprob in list(likely.items())[:5]:
            assert abs(float(own[index]) - logprob) < 0.35


def vocabulary_alone(path: Path, target: Path, *, pre: str) -> Path:
    """The tokenizer of a file in a model of one small layer, which llama.cpp loads."""
    told = read_gguf(path).metadata
    writer = gguf.GGUFWriter(target, "llama")
    width, tokens = 32, told["tokenizer.ggml.tokens"]
    sizes = {"block_count": 1, "context_length": 512, "embedding_length": width}
    sizes |= {"feed_forward_length": width, "attention.head_count": 2, "vocab_size": len(tokens)}
    for key, size in sizes.items():
        writer.add_uint32(f"llama.{key}", size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(told["tokenizer.ggml.token_type"])
    writer.add_token_merges(told["tokenizer.ggml.merges"])
    writer.add_bos_token_id(told["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(told["tokenizer.ggml.eos_token_id"])
    writer.add_add_bos_token(False)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(tokens), width)}
    shapes |= dict.fromkeys(("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"), (width,))
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (width, width) for name in matrices}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.ones(shape).numpy() * 0.02)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
