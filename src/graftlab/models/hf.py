"""A Hugging Face causal language model, from a folder or a hub id."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, GraftlabError, ModelError
from graftlab.models.architecture import Architecture
from graftlab.models.base import ModelSpec
from graftlab.models.headers import (
    check_headers,
    check_vocabulary,
    refuse_quantised,
)
from graftlab.models.integrity import existing_folder, require_undamaged
from graftlab.models.own_attention import own_attention
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.counting import require_dense
from graftlab.models.quantization.packed import comes_as, refuse_twice
from graftlab.models.stateful import stateful_layers
from graftlab.models.trust import names_code, require_trust
from graftlab.models.weights import read_json, stored_tensors, weight_files
from graftlab.registry import choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from graftlab.models.hf_base import HFBase
    from graftlab.text.tokenizer import Tokenizer

# Everything a base needs, and no second copy of the weights in another format.
NEEDS_ONE = (
    "model=hf needs exactly one of model.path=DIR (a folder written by save_pretrained) and "
    "model.hub=ID (such as Qwen/Qwen2.5-0.5B-Instruct)."
)
PART = re.compile(r"(vision|audio|vq)\w*_config")
"""Where a config.json describes a model of images or sounds inside of this one."""
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.tiktoken"]


@choice("hf")
@dataclass(kw_only=True, slots=True)
class HFModel(ModelSpec):
    """`model=hf`: exactly one of `path` (a local folder) and `hub` (an id) is given."""

    path: str | None = None
    """Folder written by `save_pretrained` (safetensors)."""
    hub: str | None = None
    """Hub id; downloaded once into the Hugging Face cache."""
    revision: str | None = None
    """Commit, branch or tag of the hub id; pin a commit for runs that must repeat."""
    trust_remote_code: bool = False
    """Run Python code that ships with the model. Off unless you have read that code; taken from
    the command line alone, never from a file."""
    architecture: Architecture = field(default_factory=Architecture)

    quantises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        both = self.path is not None and self.hub is not None
        if both or not (self.path or self.hub or self.architecture.known):
            raise ConfigError(NEEDS_ONE)
        if self.revision is not None and self.hub is None:
            raise ConfigError("model.revision belongs to model.hub; a folder has no revisions.")

    @property
    def name(self) -> str:
        """For people: the hub id, or the folder's name."""
        return self.hub or self.folder().name

    def check(self) -> None:
        if self.hub is None:
            check_folder(self.folder(), self.quantization)
            require_trust(self.folder(), self)

    @property
    def on_disk(self) -> bool:
        return self.path is not None

    def description(self) -> Path | None:
        if self.hub is None:
            return self.folder() if self.on_disk else None
        weightless = [pattern for pattern in HUB_FILES if pattern != "*.safetensors"]
        return _download(self.hub, self.revision, files=weightless)

    def folder(self) -> Path:
        if self.hub is not None:
            if (described := self.description()) is not None:  # before gigabytes are fetched
                refuse_quantised(described, read_json(described / "config.json"))
            return _download(self.hub, self.revision)
        if self.path is None:
            raise ConfigError(NEEDS_ONE)
        return existing_folder(self.path)

    def fingerprint(self) -> str:
        from graftlab.models.fingerprint import fingerprint

        return fingerprint(self.folder(), self.quantization)

    @property
    def storage(self) -> Quantization:
        if self.quantization.title:
            return self.quantization
        try:
            described = self.description()
            config = read_json(described / "config.json") if described is not None else {}
        except ModelError:  # said by whoever needs the files
            config = {}
        return comes_as(config) or self.quantization

    def weight_files(self) -> list[Path]:
        return weight_files(self.folder())

    def read_weights(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        files = self.weight_files()
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    @property
    def num_bytes(self) -> int:
        if not self.on_disk:
            return 0
        return sum(file.stat().st_size for file in self.folder().glob("*.safetensors"))

    def stateful_layers(self) -> list[str]:
        return list(self._facts()[0])

    def own_attention(self) -> str | None:
        """Why the model's own attention is to compute it; None where packed attention does."""
        if self.attention == "own":
            return "model.attention=own is the model's own attention"
        return self._facts()[1] if self.attention == "auto" else None

    def _facts(self) -> Facts:
        if self.hub is not None:
            return _hub_facts(self.hub, self.revision, self.trust_remote_code)
        return _facts_of(self)

    @property
    def packing_obstacle(self) -> str | None:
        if kinds := self.stateful_layers():
            return f"its {', '.join(kinds)} layers carry state along the row"
        return self.own_attention()

    @property
    def joint_obstacle(self) -> str | None:
        obstacle = self.packing_obstacle
        return f"{obstacle}, where adapters' rows would meet" if obstacle else None

    @property
    def compile_obstacle(self) -> str | None:
        obstacle = self.packing_obstacle
        return f"one conversation a pass is not compiled ({obstacle})" if obstacle else None

    def plan_draft(self, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
        from graftlab.models.shrink import plan

        return plan(self.description() or self.folder(), layers=layers, hidden=hidden)

    def build_draft(
        self, folder: Path, *, layers: int | None, hidden: int | None, seed: int, embedding: str
    ) -> None:
        from graftlab.models.shrink import build

        pattern = self.folder() if embedding == "projected" else None
        build(self.plan_draft(layers=layers, hidden=hidden), folder, seed=seed, pattern=pattern)

    def load_tokenizer(self, folder: Path | None = None) -> Tokenizer:
        from graftlab.text.load import load_tokenizer

        trusted = self.trust_remote_code
        place, template = folder or self.folder(), None  # an adapter's is saved with its template
        if folder is None:
            template = self.template
        elif not (trusted and names_code(folder / "tokenizer_config.json", "AutoTokenizer")):
            trusted = False
        else:
            # Trust is in the base's own code, never in the copy of it that lies beside an adapter.
            saved = folder / "chat_template.jinja"
            place, template = self.folder(), str(saved) if saved.is_file() else self.template
        tokenizer = load_tokenizer(place, template=template, trust_remote_code=trusted)
        check_vocabulary(tokenizer, place, self.folder())
        return tokenizer

    def load(self, *, dtype: torch.dtype, device: torch.device) -> HFBase:
        from graftlab.models.fingerprint import fingerprint
        from graftlab.models.from_pretrained import require_replaceable
        from graftlab.models.hf_base import HFBase

        folder = self.folder()
        check_folder(folder, self.quantization)
        require_trust(folder, self)
        require_undamaged(folder)
        own = self.own_attention() is not None
        model = self._load_model(folder, dtype=dtype, device=device, own=own)
        base = HFBase(
            model,
            name=self.name,
            source=self.hub or str(folder),
            folder=folder,
            fingerprint=self.fingerprint(),
            fingerprint_as=partial(fingerprint, folder),
            attention="own" if own else self.attention,
        )
        if not own and not base.stateful_layers:
            require_replaceable(model, folder)
        return base

    def _load_model(
        self, folder: Path, *, dtype: torch.dtype, device: torch.device, own: bool
    ) -> PreTrainedModel:
        """The model of transformers, its weights stored as they are to be."""
        from graftlab.models.empty import empty_model
        from graftlab.models.from_pretrained import from_pretrained

        where = {"dtype": dtype, "device": device}
        how: dict[str, Any] = {"trust_remote_code": self.trust_remote_code, "own": own, **where}
        empty = partial(empty_model, folder, **how)
        make = partial(from_pretrained, folder, quantization=self.quantization, **how)
        if isinstance(codes := self.storage, Codes) and codes is not self.quantization:
            from graftlab.models.quantization.packed_loading import load_packed

            return load_packed(empty(), folder, codes, dtype=dtype, device=device)
        if isinstance(self.quantization, Codes) and self.quantization.cache:
            from graftlab.models.quantization.kept import kept_place, load_kept

            home = kept_place(folder, self.quantization, dtype)
            return load_kept(
                home, self.quantization, dtype=dtype, device=device, make=make, empty=empty
            )
        return make()


Facts = tuple[tuple[str, ...], str | None]
"""Kinds of layers that carry state, and what is its own in a model's attention."""


def _facts_of(spec: HFModel) -> Facts:
    from graftlab.models.metadata import read_metadata

    try:
        found = read_metadata(spec)
    except GraftlabError:  # said by whoever needs the files
        return (), None
    stateful = tuple(stateful_layers(found.config, found.tensors))
    return stateful, own_attention(found.config, found.tensors)


@lru_cache
def _hub_facts(hub: str, revision: str | None, trusted: bool) -> Facts:
    """Looked up once: every look at the hub may be a request."""
    return _facts_of(HFModel(hub=hub, revision=revision, trust_remote_code=trusted))


def check_folder(folder: Path, quantization: Quantization) -> None:
    """Whether `folder` holds a text model that can be trained, and stored so; reads headers only.

    Raises ModelError.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json: is it a model folder?")
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise ModelError(f"{folder}/config.json names no model_type: is it a model folder?")
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{folder} is an encoder with a decoder ({config['model_type']}): graftlab trains "
            "decoders alone, such as Qwen, Llama or Gemma."
        )
    if parts := [key for key in config if PART.fullmatch(key)]:
        raise ModelError(
            f"{folder} is a {config['model_type']} model with more than text ({', '.join(parts)}). "
            "Use the text-only checkpoint of the same family."
        )
    check_headers(folder, config)
    refuse_twice(folder, config, quantization)
    require_dense(str(folder), stored_tensors(folder), quantization)


def _download(hub: str, revision: str | None, *, files: list[str] = HUB_FILES) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=files))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ModelError(
            f"model.hub={hub} is neither in the local cache nor could it be downloaded: {error} "
            "Without a network, copy the folder here and use model.path=DIR."
        ) from error
