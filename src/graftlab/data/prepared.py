"""`data=prepared`: the folder that `graftlab prepare` made, with its own split.

data.path=DIR                      a folder that is there
data.recipe=NAME data.corpus=FILE  the recipe is run when its result is not there yet

The door composes the recipe in full and gives the result a key, the hash of all that decides it.
The task makes the folder before anything reads it (recipes/dataset.py): this room knows no recipes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.caches import default_cache
from graftlab.data.source import DataSpec
from graftlab.errors import ConfigError, require_range
from graftlab.files.checksums import DamagedError, check_folder_once
from graftlab.registry import choice

MANIFEST = "manifest.json"
"""Written last by `prepare`: a folder without it is not a whole result."""

WHOLE = (MANIFEST, "train.jsonl", "valid.jsonl")
"""What is read of a prepared folder, and checked before."""

ELSEWHERE = {"recipe": "recipe", "corpus": "corpus", "seed": "seed", "out": "path"}
"""Keys of `prepare` that have one of their own here, and which."""


@choice("prepared")
@dataclass(kw_only=True, slots=True)
class PreparedData(DataSpec):
    """`data=prepared data.path=DIR`, or `data=prepared data.recipe=NAME data.corpus=FILE`."""

    path: str | None = None
    """The folder that `graftlab prepare out=DIR` made; with data.recipe, where its result goes
    (null: into the cache)."""
    recipe: str | None = None
    """The recipe to run when its result is not there yet, such as airoad-mix."""
    corpus: Any = None
    """The files the recipe starts from: one, a list, a glob, or a folder of .txt."""
    seed: int = 0
    """The recipe's seed: what is drawn while preparing, whatever the seed of training."""
    prepare: dict[str, Any] = field(default_factory=dict)
    """Further keys of `graftlab prepare`, as in data.prepare.dedupe.near=0.9; run.yaml has all."""
    key: str | None = None
    """Hash of all that decides the recipe's result; filled in when the recipe is composed."""
    valid_fraction: float = 0.0
    """Share held out of the training rows where the folder has no validation rows."""
    on_invalid: str = "skip"
    """skip: leave out what cannot be trained, such as tools that the chat template does not show,
    listed in rejects.jsonl; error: refuse the folder."""

    def __post_init__(self) -> None:
        DataSpec.__post_init__(self)
        require_range("data.seed", self.seed, least=0)
        if problems := self._problems():
            raise ConfigError("\n".join(problems))

    def _problems(self) -> list[str]:
        """What does not fit together, one line each."""
        problems = []
        if self.train or self.valid:
            problems.append(
                "data=prepared brings its own files: give data.path=DIR alone, or data.recipe=NAME "
                "data.corpus=FILE."
            )
        if self.recipe:
            problems += [
                f"data.prepare.{name} has a key of its own: data.{own}."
                for name, own in ELSEWHERE.items()
                if name in self.prepare and self.key is None
            ]
        elif self.corpus or self.prepare:
            problems.append(
                "data.corpus and data.prepare belong to a recipe: name it with data.recipe=NAME "
                "(chats, for conversations of your own)."
            )
        elif not self.path:
            problems.append(
                "data.path is not set: data=prepared needs data.path=DIR, a folder made by "
                "graftlab prepare, or data.recipe=NAME data.corpus=FILE to make one."
            )
        return problems

    def folder(self) -> Path:
        """Where the data set lies, or will lie. Raises ConfigError before the recipe is known."""
        if self.path:
            return Path(self.path).expanduser()
        if self.key is None:
            raise ConfigError(
                f"data.recipe={self.recipe} is not composed: recipes.dataset.compose does it."
            )
        return default_cache() / f"prepared-{self.key}"

    def check(self) -> None:
        """Raise ConfigError unless the folder is there, or a recipe that makes it."""
        if self.recipe is None or (self.folder() / MANIFEST).is_file():
            self.files()

    def files(self) -> tuple[list[Path], list[Path]]:
        folder = self.folder()
        named = f"data.path={self.path}" if self.path else f"data.recipe={self.recipe}: {folder}"
        if not folder.is_dir():
            raise ConfigError(f"{named}: there is no such folder.")
        train, valid = folder / "train.jsonl", folder / "valid.jsonl"
        missing = [file.name for file in (folder / MANIFEST, train) if not file.is_file()]
        if missing:
            raise ConfigError(
                f"{named} is not a folder made by graftlab prepare (it has no "
                f"{' and no '.join(missing)}). For files of your own: data=jsonl data.train=FILE."
            )
        try:
            check_folder_once(folder, WHOLE)
        except DamagedError as error:
            held_out = f" data.valid={valid}" if valid.is_file() else ""
            raise ConfigError(
                f"{named}: {error}. Prepare it again (graftlab prepare); or, if the change was "
                f"yours, train on the files themselves: data=jsonl data.train={train}{held_out}"
            ) from error
        return [train], [valid] if valid.is_file() and valid.stat().st_size else []
