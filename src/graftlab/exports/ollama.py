"""`target=ollama`: what `ollama create NAME -f Modelfile` makes a model of.

    model.gguf    base and adapter as one, as target=gguf writes it
    Modelfile     how conversations are written, where answers end, and how they are drawn

Ollama 0.34.1 and later refuse an adapter beside a base. For earlier ones there is
target.content=adapter: the adapter in PEFT's format, with its scale in its weights.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, ModelError, require_choice, require_range
from graftlab.exports.generation_config import generation_config
from graftlab.exports.gguf.target import FILE as WEIGHTS
from graftlab.exports.gguf.target import GGUF
from graftlab.exports.merged import BESIDE
from graftlab.exports.modelfile import FILE, Modelfile
from graftlab.exports.parity.spec import Bounds
from graftlab.exports.peft import CONFIG
from graftlab.exports.peft import WEIGHTS as ADAPTER
from graftlab.exports.plain_base import require_known_base
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare_file, save_tensors, write_config
from graftlab.exports.turns import CONVERSATIONS, Turns, UnlikeError, strips_content, turns_of
from graftlab.exports.vllm import served
from graftlab.files.checksums import write_checksums
from graftlab.files.reading import read_text
from graftlab.registry import choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.exports.runtimes.base import NotHere, Runtime
    from graftlab.text.tokenizer import Tokenizer

CONTENTS = ("merged", "adapter")
FOLDER = "adapter"
LARGEST_LICENSE = 2**20
"""Bytes of a licence's text."""
WITHOUT_TEMPLATE = (
    "no TEMPLATE: the chat template cannot be told in Go, for {reason}. Ollama would guess one: "
    "llama-server -m model.gguf --jinja renders the template itself"
)


@choice("ollama")
@dataclass(kw_only=True, slots=True)
class Ollama(Target):
    """A model for Ollama: a GGUF file and a Modelfile."""

    content: str = "merged"
    """merged, or adapter: beside a base that Ollama has, before its version 0.34.1."""
    base: str | None = None
    """What Ollama calls the base, for target.content=adapter, such as smollm2:135m."""
    quant: str = "f16"
    """Type of the weights: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0."""
    strength: float = 1.0
    """How much of the adapter: 1 as trained, 0.7 softer."""
    imatrix_rows: int = 0
    """Training rows that an importance matrix is made from, for six bits and fewer; 0: none."""
    system: str | None = None
    """The system text of conversations that bring none; null writes no SYSTEM."""
    temperature: float | None = None
    """How answers are drawn; null leaves it to Ollama, and so with the next ones."""
    top_p: float | None = None
    """The share of probability that is drawn from."""
    top_k: int | None = None
    """The number of likeliest tokens that is drawn from; 0: all."""
    num_ctx: int | None = None
    """Tokens of the context; what does not fit is dropped from the front."""
    license: str | None = None
    """A file with the licence's text; null takes those of the base's folder."""

    def __post_init__(self) -> None:
        require_choice("target.content", self.content, CONTENTS)
        require_range("target.temperature", self.temperature, least=0)
        require_range("target.top_p", self.top_p, above=0, most=1)
        require_range("target.top_k", self.top_k, least=0)
        require_range("target.num_ctx", self.num_ctx, least=1)
        if (self.content == "adapter") != (self.base is not None):
            raise ConfigError(
                "target.base=NAME is what Ollama calls the base of an adapter: give it with "
                "target.content=adapter, and leave it out without."
            )
        self._merged()

    def check_files(self) -> None:
        if self.license is not None and not Path(self.license).expanduser().is_file():
            raise ConfigError(f"target.license={self.license}: there is no such file.")
        if self.content == "merged":
            self._merged().check_files()

    def check(self, adapter: Trained) -> list[str]:
        tokenizer = require_known_base(adapter, "ollama").load_tokenizer()
        notes = []
        if self.content == "merged":
            notes += self._merged().check(adapter)
        else:
            served(adapter, by="Ollama")
            notes.append("Ollama 0.34.1 and later refuse ADAPTER: target.content=merged is for all")
        try:
            turns = turns_of(tokenizer, adds_bos=True)
        except UnlikeError as error:
            return [*notes, WITHOUT_TEMPLATE.format(reason=error)]
        if not turns.has_system:
            self._refuse_system()
            notes.append("the chat template has no system turn: Ollama leaves such texts out")
        if strips_content(tokenizer):
            notes.append(
                "the chat template takes white space from the ends of messages, as Ollama does not"
            )
        return notes

    def write(self, adapter: Trained, folder: Path) -> None:
        if self.content == "merged":
            self._merged().write(adapter, folder)
        else:
            (folder / FOLDER).mkdir()
            state, config = _scaled(adapter)
            save_tensors(state, folder / FOLDER / ADAPTER, library="pt")
            write_config(folder / FOLDER / CONFIG, config)
        text = self._modelfile(adapter, folder).text()
        (folder / FILE).write_text(text, encoding="utf-8", newline="\n")
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        wanted = self._modelfile(adapter, folder)
        if Modelfile.read((folder / FILE).read_text(encoding="utf-8")) != wanted:
            raise ModelError(f"{folder.name}/{FILE} was not read back as it was written.")
        if self.content == "merged":
            facts = self._merged().verify(adapter, folder)
        else:
            count = compare_file(folder / FOLDER / ADAPTER, _scaled(adapter)[0])
            facts = [f"{count} tensors read back equal"]
        if wanted.template is not None:
            facts.append(f"TEMPLATE: {len(CONVERSATIONS)} conversations as the chat template's")
        return [*facts, f"{FILE} read back; Ollama itself was not asked"]

    @property
    def scale(self) -> float:
        return self.strength

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        """llama.cpp, which Ollama is built on; the TEMPLATE is compared by itself."""
        if self.content == "adapter":
            return NotHere("the base that Ollama has is not here")
        return self._merged().runtime(adapter, folder)

    def bounds(self, folder: Path) -> Bounds:
        return self._merged().bounds(folder)

    def cure(self) -> str:
        return self._merged().cure()

    def publish(self, folder: Path) -> list[str]:
        return [f"to run it: ollama create NAME -f {shlex.quote(str(folder / FILE))}"]

    def _merged(self) -> GGUF:
        return GGUF(quant=self.quant, strength=self.strength, imatrix_rows=self.imatrix_rows)

    def _refuse_system(self) -> None:
        if self.system:
            raise ConfigError(
                "target.system: the chat template has no system turn, and the model was trained "
                "without. Leave it out."
            )

    def _modelfile(self, adapter: Trained, folder: Path) -> Modelfile:
        """What describes what lies in `folder`. Raises ConfigError for what it cannot say."""
        trained = require_known_base(adapter, "ollama")
        tokenizer, base = trained.load_tokenizer(), trained.model.folder()
        merged = self.content == "merged"
        comments = ["ollama create NAME -f Modelfile"]
        comments += [] if merged else ["needs Ollama before 0.34.1, which refuses ADAPTER"]
        turns = self._turns(tokenizer, folder)
        if not isinstance(turns, Turns):
            comments.append(WITHOUT_TEMPLATE.format(reason=turns))
        drawn = ("temperature", "top_p", "top_k", "num_ctx")
        values = [(key, getattr(self, key)) for key in drawn]
        return Modelfile(
            source=f"./{WEIGHTS}" if merged else self.base or "",
            adapter=None if merged else f"./{FOLDER}",
            template=turns.go_template() if isinstance(turns, Turns) else None,
            system=self.system,
            parameters=(
                *((key, f"{value:g}") for key, value in values if value is not None),
                *(("stop", text) for text in stops(tokenizer, base)),
            ),
            licenses=self._licenses(base),
            comments=comments,
        )

    def _turns(self, tokenizer: Tokenizer, folder: Path) -> Turns | UnlikeError:
        """The template's turns, without the BOS where Ollama reads in the file that it adds it."""
        adds_bos = tokenizer.bos is not None
        if self.content == "merged":
            from graftlab.models.gguf.file import read_gguf

            told = read_gguf(folder / WEIGHTS).metadata
            # Where a file does not say, vocabularies of pieces begin with it and others do not.
            usual = told.get("tokenizer.ggml.model") == "llama"
            adds_bos = bool(told.get("tokenizer.ggml.add_bos_token", usual))
        try:
            return turns_of(tokenizer, adds_bos=adds_bos)
        except UnlikeError as error:
            return error

    def _licenses(self, base: Path) -> tuple[str, ...]:
        if self.license is not None:
            files = [Path(self.license).expanduser()]
        else:
            named = (file for pattern in BESIDE[1:] for file in base.glob(pattern))
            files = sorted(file for file in named if file.is_file())
        texts = [read_text(file, most=LARGEST_LICENSE) for file in files]
        return tuple(text.replace("\r\n", "\n").replace("\f", "") for text in texts)


def stops(tokenizer: Tokenizer, base: Path) -> list[str]:
    """The texts of all tokens at which an answer ends, the template's own first."""
    ids = tokenizer.stop_ids
    if (base / "config.json").is_file():
        ids = tuple(generation_config(base, tokenizer)["eos_token_id"])
    return [tokenizer.decode([index], skip_special=False) for index in ids]


def _scaled(adapter: Trained) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Weights and config of one rank, in a scale of 1: Ollama knows whole alphas, and no rsLoRA."""
    one = served(adapter, by="Ollama")
    rank = one.rank
    root = rank**0.5 if one.config.get("use_rslora") else rank
    scale = float(one.config["lora_alpha"]) / root
    state = {
        name: (tensor.float() * scale).to(tensor.dtype) if ".lora_B." in name else tensor
        for name, tensor in one.state.items()
    }
    return state, {**one.config, "lora_alpha": rank, "use_rslora": False}
