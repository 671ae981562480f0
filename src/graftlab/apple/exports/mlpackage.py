"""`target=mlpackage`: a small model for Core ML, with an adapter in its weights, or as a draft.

An adapter in its base, and a whole model with `target.cache=true`, keep keys and values between
calls, in half precision (`stateful.py` says what goes in and out):

    NAME.mlpackage/Data/com.apple.CoreML/...    the program and its weights
    NAME.mlpackage/Data/graftlab/README.md      how it is called, also in call.json
    NAME.mlpackage/Data/graftlab/tokenizer/     of training, with the chat template

A draft has no memory: ids (1, length) int32 -> logits (1, length, V) fp16. A causal model does not
see later positions: shorter input is filled up at the end, and the row of logits at the last real
token is read. Its weights are of 16 shades (4-bit k-means).

coremltools writes either, on Linux too; running them needs a Mac.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftlab.errors import ConfigError, ModelError, require_choice, require_range
from graftlab.exports.runtimes.base import NotHere
from graftlab.exports.target import Target
from graftlab.registry import choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from graftlab.apple.exports.stateful import Stateful
    from graftlab.apple.exports.whole import Logits
    from graftlab.exports.gguf.merging import Merged
    from graftlab.exports.runtimes.base import Runtime
    from graftlab.exports.source import Trained
    from graftlab.text.tokenizer import Tokenizer

INSTALL = "pip install 'graftlab[coreml]'"
FP16 = 16
LONGEST = 2**15 - 1
"""coremltools counts positions in 16 bits."""
TOLERANCE = {4: 0.2, 6: 0.06, 8: 0.03, FP16: 0.0}
"""Bits -> the largest root mean square error, in standard deviations of the weights."""
NOT_RUN = "it was converted and read back here, not run: Core ML runs on Apple's systems only"
MOST_DRIFT = 1e-3
"""Largest difference of logits in fp32, as a share of the largest: pieces against one pass."""
MOST_KL = 0.05
"""Nats that computing in half precision explains."""

ROLES = ("user", "assistant")


@choice("mlpackage")
@dataclass(kw_only=True, slots=True)
class MLPackage(Target):
    """A Core ML package of a small model: an adapter in its base, a draft, or a model folder."""

    suffix: ClassVar[str] = ".mlpackage"
    needs_name: ClassVar[bool] = True
    closed: ClassVar[bool] = True

    cache: bool | None = None
    """Keep keys and values between calls; null: of an adapter's model, not of a draft."""
    contexts: list[int] = field(default_factory=lambda: [2048, 4096])
    """Positions that one call with a cache reads, one or several to choose from."""
    chunk: int = 64
    """Tokens of a prompt that one call with a cache reads."""
    length: int = 256
    """Tokens that one call without a cache reads."""
    bits: int | None = None
    """Bits of a weight: 4, 6, 8 (k-means) or 16; null: 16 with a cache, else 4."""
    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer."""

    def __post_init__(self) -> None:
        if self.bits is not None:
            require_choice("target.bits", str(self.bits), [str(bits) for bits in TOLERANCE])
        require_range("target.length", self.length, least=2, most=4096)
        require_range("target.strength", self.strength, above=0)
        require_range("target.chunk", self.chunk, least=2, most=4096)
        self.contexts = sorted(set(self.contexts))
        for context in self.contexts:
            require_range("target.contexts", context, most=LONGEST)
        if not self.contexts or self.contexts[0] < self.chunk:
            raise ConfigError(
                f"target.contexts={self.contexts} needs one length at least, and none below "
                f"target.chunk={self.chunk}."
            )

    def check(self, adapter: Trained) -> list[str]:
        if adapter.whole is None:
            self._require_fitting(self._merged(adapter).base.model, adapter)
        elif self._stateful(adapter):
            self._require_fitting(self._loaded(adapter), adapter)
        try:
            import coremltools  # noqa: F401
            import sklearn  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"target=mlpackage needs coremltools: {INSTALL}") from error
        return [NOT_RUN]

    def write(self, adapter: Trained, folder: Path) -> None:
        from graftlab.apple.exports.coreml import convert, convert_stateful, describe

        bits = self._bits(adapter)
        if not self._stateful(adapter):
            convert(self._draft(adapter), length=self.length, bits=bits).save(str(folder))
            return
        graph = self._graph(self._loaded(adapter))
        package = convert_stateful(graph, chunk=self.chunk, contexts=self.contexts, bits=bits)
        describe(
            package,
            graph,
            _tokenizer(adapter),
            folder,
            chunk=self.chunk,
            contexts=self.contexts,
        )

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        from graftlab.apple.exports.coreml import compare_weights

        bits = self._bits(adapter)
        if not self._stateful(adapter):
            draft = self._draft(adapter)
            return [compare_weights(draft, folder, TOLERANCE[bits], bits, every=False)]
        from graftlab.apple.exports.coreml import compare_program

        model = self._loaded(adapter)
        graph, answers = self._as_in_one_pass(model, _tokenizer(adapter))
        return [
            *answers,
            compare_program(graph, folder, chunk=self.chunk, contexts=self.contexts),
            compare_weights(graph, folder, TOLERANCE[bits], bits, every=True),
        ]

    @property
    def scale(self) -> float:
        return self.strength

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        return NotHere("Core ML runs on Apple's systems only")

    def _stateful(self, adapter: Trained) -> bool:
        return adapter.whole is None if self.cache is None else self.cache

    def _bits(self, adapter: Trained) -> int:
        return self.bits or (FP16 if self._stateful(adapter) else 4)

    def _merged(self, adapter: Trained) -> Merged:
        from graftlab.exports.gguf.merging import merged

        return merged(adapter, self.strength, target="mlpackage")

    def _loaded(self, adapter: Trained) -> PreTrainedModel:
        from graftlab.apple.exports.whole import is_hugging_face, load_folder, load_merged

        if adapter.whole is None:
            return load_merged(self._merged(adapter))
        if not is_hugging_face(adapter.whole):
            raise ModelError(
                f"{adapter.whole} is no model of transformers, and target.cache=true takes those "
                "alone."
            )
        return load_folder(adapter.whole)

    def _draft(self, adapter: Trained) -> Logits:
        from graftlab.apple.exports.whole import load_whole, plain

        if adapter.whole is None:
            return plain(self._loaded(adapter), length=self.length).eval()
        return load_whole(adapter.whole, length=self.length)

    def _graph(self, model: PreTrainedModel) -> Stateful:
        from graftlab.apple.exports.stateful import Stateful

        return Stateful(model, length=self.contexts[-1]).eval()

    def _require_fitting(self, model: PreTrainedModel, adapter: Trained) -> None:
        """Raise ModelError where the model's kind or length is another than can be written."""
        if not self._stateful(adapter):
            return
        from graftlab.apple.exports.stateful import require_family

        require_family(model, subject=str(adapter.path))
        most = int(model.config.max_position_embeddings)
        if self.contexts[-1] > most:
            kept = [size for size in self.contexts if size <= most] or [most]
            raise ModelError(
                f"{adapter.path}: its model reads {most} positions: target.contexts={kept}."
            )

    def _as_in_one_pass(
        self, model: PreTrainedModel, tokenizer: Tokenizer
    ) -> tuple[Stateful, list[str]]:
        """What is traced, in fp16 afterwards, and how it answers beside the model as it was.

        Raises ModelError where it answers otherwise.
        """
        import torch

        from graftlab.apple.exports.stateful import SINGLE, read

        ids = _sample(tokenizer, min(2 * self.chunk + SINGLE, self.contexts[-1]))
        with torch.no_grad():
            wanted = model(torch.tensor([ids]), use_cache=False).logits[0]
        graph = self._graph(model)
        found = read(graph, ids, chunk=self.chunk, contexts=self.contexts)
        drift = float((found - wanted).abs().max() / wanted.abs().max())
        if not drift <= MOST_DRIFT:
            raise ModelError(
                f"with its cache the model answers otherwise than without: logits are off by "
                f"{drift:.2g} of the largest. This is a mistake of graftlab; nothing was kept."
            )
        halved = read(graph.half(), ids, chunk=self.chunk, contexts=self.contexts).float()
        trained = wanted.log_softmax(-1)
        kl = float((trained.exp() * (trained - halved.log_softmax(-1))).sum(-1).mean())
        if not kl <= MOST_KL:  # NaN is not, either
            raise ModelError(
                f"in half precision, in which Core ML computes, the model answers otherwise: KL "
                f"{kl:.2g} nats. target=gguf and target=mlx compute it as it was trained."
            )
        return graph, [
            f"{len(ids)} tokens in pieces and one by one: logits as in one pass to {drift:.1e} of "
            f"the largest in fp32, KL {kl:.1e} nats in fp16 (in PyTorch, not in Core ML)"
        ]


def _tokenizer(adapter: Trained) -> Tokenizer:
    from graftlab.text.load import load_tokenizer

    if adapter.whole is not None:
        return load_tokenizer(adapter.whole)
    assert adapter.on_base is not None, "it was merged"
    return adapter.on_base.load_tokenizer()


def _sample(tokenizer: Tokenizer, count: int) -> list[int]:
    """So many ids of some conversation, over and over."""
    from graftlab.exports.parity.rows import CONVERSATIONS
    from graftlab.types import Message

    turns = [turn for pair in CONVERSATIONS for turn in zip(ROLES, pair, strict=True)]
    ids = tokenizer.render([Message(*turn) for turn in turns], generation_prompt=False)
    return (ids * -(-count // len(ids)))[:count]
