"""`model=afm-mini`, the miniature of Apple's model: made once, on the spot, and kept in the cache.

    $GRAFTLAB_CACHE/afm-mini-KEY/    an assets folder like that of Apple's toolkit (demo/afm.py)

KEY is a hash of the recipe and of the code that writes text, tokenizer and weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.caches import default_cache, is_intact
from graftlab.errors import ConfigError, ModelError, require_range
from graftlab.files.checksums import write_checksums
from graftlab.models.afm import SIZES, AFMModel
from graftlab.models.architecture import Architecture

if TYPE_CHECKING:
    from graftlab.adapters.lora import Lora
    from graftlab.demo.afm import MiniRecipe


@dataclass(kw_only=True, slots=True)
class AFMMini(AFMModel):
    """`model=afm-mini`: Apple's architecture in two million parameters; needs no assets."""

    steps: int | None = None
    """Steps of its pretraining; null: the recipe's, about a minute on two cores."""

    def __post_init__(self) -> None:
        AFMModel.__post_init__(self)
        require_range("model.steps", self.steps, least=1)
        if self.path:
            raise ConfigError("model=afm-mini is made on the spot; model=afm-3b takes model.path.")

    @property
    def name(self) -> str:
        return "afm-mini"

    @property
    def recipe(self) -> MiniRecipe:
        """What it is made by."""
        from graftlab.demo.afm import MiniRecipe

        return MiniRecipe() if self.steps is None else replace(MiniRecipe(), steps=self.steps)

    @property
    def on_disk(self) -> bool:
        """Always: where the cache has it not, it is made, and nothing downloaded."""
        return True

    @property
    def published(self) -> Architecture:
        """By its recipe: planning makes no weights."""
        recipe = self.recipe
        return Architecture(
            hidden_size=recipe.hidden,
            layers=recipe.layers,
            heads=recipe.heads,
            key_heads=recipe.kv_heads,
            head_dim=recipe.hidden // recipe.heads,
            feed_forward=round(recipe.hidden * SIZES["hidden_dim_scale_factor"]),
            vocab_size=recipe.vocabulary,
            tied=True,
            qk_norm=True,
            reused_layers=recipe.kv_reuse_layers,
        )

    def check(self) -> None:
        """Whether it can be made; nothing is made yet."""
        if find_spec("tamm") is None:
            raise ModelError("model=afm-mini needs tamm: pip install 'graftlab[apple]'.")

    def check_lora(self, lora: Lora) -> None:
        from graftlab.adapters.tamm_targets import resolve_targets

        resolve_targets(lora, num_layers=self.recipe.layers)

    def folder(self) -> Path:
        return mini_folder(self.recipe)


def mini_folder(recipe: MiniRecipe | None = None) -> Path:
    """The miniature's assets folder; made first where the cache has none of this recipe.

    One process makes it while others wait. An interrupted one leaves nothing behind. Raises
    ModelError where tamm is missing or the cache cannot be written.
    """
    from graftlab.demo.afm import MiniRecipe, model_config

    recipe = recipe or MiniRecipe()
    folder = default_cache() / f"afm-mini-{_key(recipe)}"
    if is_intact(folder):
        return folder
    model_config(recipe, adapters=True)  # says at once that tamm is missing
    try:
        with _alone(folder) as lock:
            if not is_intact(folder):
                _make(folder, recipe)
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(
            f"model=afm-mini: {folder.parent} cannot be written ({error.strerror or error}): let "
            "GRAFTLAB_CACHE name a folder with room."
        ) from error
    return folder


def _make(folder: Path, recipe: MiniRecipe) -> None:
    from graftlab.demo.afm import build_assets

    _say(f"a miniature of Apple's model is pretrained, once, into {folder}")
    begin = time.monotonic()
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _progress_bar() as on_step:
            facts = build_assets(draft, recipe, on_step=on_step)
        write_checksums(draft)
        draft.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # one that was damaged by hand
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _say(
        f"made in {time.monotonic() - begin:.0f} s, {facts['parameters']:,} parameters, "
        f"{facts['heldout_loss']} nats per token of held-out text"
    )


def _key(recipe: MiniRecipe) -> str:
    parts = json.dumps(asdict(recipe), sort_keys=True) + _code_hash()
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


@cache
def _code_hash() -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in [*sorted((package / "demo").glob("*.py")), package / "text" / "afm.py"]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Holds the lock on making `folder` and yields its file; a wait is told."""
    from filelock import FileLock, Timeout

    file = folder.with_name(f".{folder.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(f"another process makes it; waiting for {folder}")
        lock.acquire()
    try:
        yield file
    finally:
        lock.release()


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int, float], None]]:
    """Yields what shows a step; on stderr, and gone when done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("text and tokenizer", total=None)

        def on_step(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, description=f"loss {loss:.3f}")

        yield on_step


def _say(text: str) -> None:
    print(f"model=afm-mini: {text}", file=sys.stderr, flush=True)
