"""Apple's on-device model from the assets folder of Apple's adapter toolkit, and its miniature."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, ModelError
from graftlab.models.architecture import Architecture
from graftlab.models.base import ModelSpec
from graftlab.models.integrity import existing_folder, require_undamaged
from graftlab.registry import choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graftlab.apple.base import AFMBase
    from graftlab.apple.files import Assets
    from graftlab.text.tokenizer import Tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 153600,
    "hidden_dim": 2048,
    "num_layers": 56,
    "num_kv_reuse_layers": 21,
    "num_heads": 16,
    "num_kv_heads": 2,
    "hidden_dim_scale_factor": 3.25,
}
"""tamm 0.1.0's defaults of AFMTextV7, which its JSON leaves out: 3,111,368,064 parameters."""
ASSET = Path(__file__).parent / "assets"
"""The miniature, pretrained once by tools/."""


@choice("afm-3b")
@dataclass(kw_only=True, slots=True)
class AFMModel(ModelSpec):
    """`model=afm-3b model.path=TOOLKIT_ASSETS`: base-model.pt, its config, tokenizer.model."""

    path: str | None = None
    """The toolkit's assets folder."""
    locale: str | None = None
    """Whose default instruction opens system turns: pt_BR, de_DE, ...; null: English, or what the
    folder was saved with."""
    instruction: str | None = None
    """An instruction of your own in its place; an empty one leaves system turns as they are."""

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        if self.locale is not None:
            from graftlab.apple.tokenizer import instruction_of

            instruction_of(self.locale)
        if self.template is not None and (self.locale or self.instruction is not None):
            raise ConfigError(
                "model.locale and model.instruction belong to the model's own template: leave "
                "model.template out."
            )

    @property
    def name(self) -> str:
        return f"AFM ({self.folder().name})" if self.on_disk else "AFM 3B"

    @property
    def on_disk(self) -> bool:
        return self.path is not None

    def description(self) -> Path | None:
        return self.folder() if self.on_disk else None

    @property
    def published(self) -> Architecture:
        """By its config, or as published; layers under their usual names."""
        from graftlab.apple.files import find_assets, read_plain

        config = (read_plain(find_assets(self.folder()).config) or {}) if self.on_disk else {}
        known = {**SIZES, **{key: value for key, value in config.items() if key in SIZES}}
        hidden, heads = int(known["hidden_dim"]), int(known["num_heads"])
        return Architecture(
            hidden_size=hidden,
            layers=int(known["num_layers"]),
            heads=heads,
            key_heads=int(known["num_kv_heads"] or heads),
            head_dim=hidden // heads,
            feed_forward=round(hidden * known["hidden_dim_scale_factor"]),
            vocab_size=int(known["vocab_size"]),
            tied=True,
            qk_norm=True,
            reused_layers=int(known["num_kv_reuse_layers"]),
        )

    def check(self) -> None:
        self.assets()

    def folder(self) -> Path:
        if self.path is None:
            raise ConfigError(
                "model=afm-3b needs model.path=DIR: the assets folder of Apple's adapter toolkit."
            )
        return existing_folder(self.path)

    def assets(self) -> Assets:
        """Its files. Raises ModelError naming all that are missing."""
        from graftlab.apple.files import find_assets

        return find_assets(self.folder())

    def fingerprint(self) -> str:
        from graftlab.apple.files import fingerprint

        return fingerprint(self.assets())

    def weight_files(self) -> list[Path]:
        from graftlab.apple.files import WEIGHTS

        return [self.folder() / WEIGHTS]

    def read_weights(self) -> dict[str, Tensor]:
        from graftlab.apple.files import read_weights

        return read_weights(self.weight_files()[0])

    @property
    def num_bytes(self) -> int:
        return self.assets().weights.stat().st_size

    @property
    def joint_obstacle(self) -> str | None:
        return "adapters of tamm are not stacked: on Apple's model each job trains by itself"

    @property
    def compile_obstacle(self) -> str | None:
        return "not on Apple's model: compiling tamm's layers takes longer than it can save"

    def plan_draft(self, *, layers: int | None, hidden: int | None) -> dict[str, Any]:
        from graftlab.apple.draft import plan

        return plan(self.folder(), layers=layers, hidden=hidden)

    def build_draft(
        self, folder: Path, *, layers: int | None, hidden: int | None, seed: int, embedding: str
    ) -> None:
        from graftlab.apple.draft import build

        sizes = {"layers": layers, "hidden": hidden}
        build(self.folder(), folder, **sizes, seed=seed, embedding=embedding)

    def load_tokenizer(self, folder: Path | None = None) -> Tokenizer:
        from graftlab.apple.tokenizer import load_afm
        from graftlab.text.load import load_tokenizer

        if folder is not None:
            return load_tokenizer(folder)
        if self.template is not None:
            return load_tokenizer(self.folder(), template=self.template)
        return load_afm(self.folder(), locale=self.locale, instruction=self.instruction)

    def load(self, *, dtype: torch.dtype, device: torch.device) -> AFMBase:
        from graftlab.apple.base import AFMBase, load_model

        assets = self.assets()
        require_undamaged(self.folder())
        return AFMBase(
            load_model(assets, dtype=dtype, device=device),
            name=self.name,
            source=str(self.folder()),
            folder=self.folder(),
            fingerprint=self.fingerprint(),
            attention=self.attention,
        )


@choice("afm-mini")
@dataclass(kw_only=True, slots=True)
class AFMMini(AFMModel):
    """`model=afm-mini`: Apple's architecture in two million parameters; needs no assets."""

    def __post_init__(self) -> None:
        AFMModel.__post_init__(self)
        if self.path:
            raise ConfigError("model=afm-mini ships with graftlab; model=afm-3b takes model.path.")

    @property
    def name(self) -> str:
        return "afm-mini"

    @property
    def on_disk(self) -> bool:
        return True

    def check(self) -> None:
        if find_spec("tamm") is None:
            raise ModelError("model=afm-mini needs tamm: pip install 'graftlab[apple]'.")
        AFMModel.check(self)

    def folder(self) -> Path:
        return ASSET
