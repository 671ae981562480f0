"""`data=prepared`: the folder that `graftlab prepare` made, with its own split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError

MANIFEST = "manifest.json"
"""Written last by `prepare`: a folder without it is not a whole result."""


@dataclass(kw_only=True, slots=True)
class PreparedData(DataSpec):
    """`data=prepared data.path=DIR`."""

    path: str | None = None
    """The folder that `graftlab prepare out=DIR` made."""
    valid_fraction: float = 0.0
    """Share held out of the training rows where the folder has no validation rows."""
    on_invalid: str = "skip"
    """skip: leave out what cannot be trained yet, such as tool calls, listed in rejects.jsonl;
    error: refuse the folder."""

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        if self.train or self.valid:
            raise ConfigError("data=prepared brings its own files: give data.path=DIR alone.")
        if not self.path:
            raise ConfigError(
                "data.path is not set: data=prepared needs data.path=DIR, a folder made by "
                "graftlab prepare."
            )

    def _files(self) -> tuple[list[Path], list[Path]]:
        folder = Path(str(self.path)).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"data.path={self.path}: there is no such folder.")
        train, valid = folder / "train.jsonl", folder / "valid.jsonl"
        missing = [file.name for file in (folder / MANIFEST, train) if not file.is_file()]
        if missing:
            raise ConfigError(
                f"data.path={self.path} is not a folder made by graftlab prepare (it has no "
                f"{' and no '.join(missing)}). For files of your own: data=jsonl data.train=FILE."
            )
        return [train], [valid] if valid.is_file() and valid.stat().st_size else []
