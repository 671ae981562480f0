"""Plain transformers, with plain PEFT where the export is an adapter; in fp32 on the CPU.

Nothing of graftlab computes here: `AutoTokenizer`, `AutoModelForCausalLM`, `PeftModel`, `generate`.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.runtimes.base import Runtime, Scores
from graftlab.models.weights import file_tensors
from graftlab.text.template import functions

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.types import Message

GENERATION = "generation_config.json"
TOLERANCE = {"F64": 1e-6, "F32": 1e-6, "F16": 1e-4, "BF16": 1e-2}
"""Largest mean KL (nats) between training and export that rounding to a type explains; measured on
SmolLM2-135M: 1e-6 with fp16, 9e-5 with bf16. A tensor taken for another costs a tenth and more."""


@dataclass
class PlainRuntime(Runtime):
    """A folder of transformers, or a base with a folder of PEFT."""

    model: Path
    """What `AutoModelForCausalLM` loads."""
    tokenizer: Path
    """What `AutoTokenizer` loads."""
    adapter: Path | None = None
    """What `PeftModel` loads onto it."""
    base: Path | None = None
    """The base of a merged model, for the control."""
    generation: Path | None = None
    """The folder whose generation_config.json is used; None for that of `model`."""
    trust: bool = False
    """Run the code that ships with the model."""
    ends_replies: bool = True
    _inner: Any = field(default=None, init=False, repr=False)
    _template: Any = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        import transformers

        name = f"transformers {transformers.__version__}"
        if self.adapter is None:
            return name
        import peft

        return f"PEFT {peft.__version__} on {name}"

    @contextmanager
    def opened(self) -> Iterator[None]:
        try:
            with quiet():
                try:
                    self._open()
                except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                    said = " ".join(str(error).split())[:300]
                    raise ModelError(
                        f"transformers does not load {self.model.name}: {said}"
                    ) from error
            yield
        finally:
            self._inner = self._template = None
            gc.collect()  # a model may hold itself in cycles

    def _open(self) -> None:
        from transformers import AutoTokenizer, GenerationConfig

        self._template = AutoTokenizer.from_pretrained(
            self.tokenizer, local_files_only=True, trust_remote_code=self.trust
        )
        self._inner = self._loaded(self.model)
        if self.adapter is not None:
            from peft import PeftModel

            self._inner = PeftModel.from_pretrained(self._inner, str(self.adapter)).eval()
        if self.generation is not None and (self.generation / GENERATION).is_file():
            self._inner.generation_config = GenerationConfig.from_pretrained(self.generation)

    def _loaded(self, folder: Path) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=self.trust,
            output_loading_info=True,
        )
        for kind in ("missing_keys", "mismatched_keys"):
            if found := sorted(map(str, report[kind])):
                raise ModelError(f"transformers reads {folder.name} with {kind}: {found[:3]}.")
        return model.eval()

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        turns = [message.as_dict() for message in messages]
        ids = self._template.apply_chat_template(
            turns, tools=functions(tools), add_generation_prompt=True, return_dict=False
        )
        return list(ids)

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Scores:
        import torch

        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logits = self._inner(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        full: Tensor = logits.float().log_softmax(-1)
        chosen = full.gather(1, torch.tensor(answer)[:, None])[:, 0]
        return Scores(chosen, full)

    def reply(self, prompt: Sequence[int], most: int) -> list[int]:
        return self._generated(prompt, most)

    def ends_at(self, token: int) -> bool:
        import torch

        def forced(ids: Tensor, scores: Tensor) -> Tensor:
            alone = torch.full_like(scores, -torch.inf)
            alone[:, token] = 0
            return alone

        return len(self._generated([token], 2, logits_processor=[forced])) == 1

    def _generated(self, prompt: Sequence[int], most: int, **more: Any) -> list[int]:
        import torch

        ids = torch.tensor([list(prompt)])
        with torch.no_grad(), quiet():
            found = self._inner.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                pad_token_id=0,
                **more,
            )
        return [int(token) for token in found[0, len(prompt) :]]

    @contextmanager
    def alone(self) -> Iterator[bool]:
        if self.adapter is not None:
            with self._inner.disable_adapter():
                yield True
            return
        if self.base is None:
            yield False
            return
        self._inner = None  # two models need twice the memory
        gc.collect()
        with quiet():
            self._inner = self._loaded(self.base)
        yield True


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' warnings of what they do to each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rounding(folder: Path) -> Bounds:
    """What the types of the numbers in a folder's safetensors files explain."""
    files = folder.glob("*.safetensors")
    types = {tensor.dtype for file in files for tensor in file_tensors(file).values()}
    known = sorted(types & TOLERANCE.keys(), key=TOLERANCE.__getitem__) or ["F32"]
    return Bounds(kl=TOLERANCE[known[-1]], reason=f"rounding to {known[-1]}")
