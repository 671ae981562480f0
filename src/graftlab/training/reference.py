"""What the reference makes of all answers: one pass before the first step, kept for later runs.

    CACHE/reference-<key>/    logps.npy (all segments,) float32    checksums.json

The key is a hash of base, adapter, tokens, packing, precision and code. The reference is the base,
the adapter switched off; or the adapter that `lora.from` names, as it was before the first step.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from graftlab.caches import default_cache, is_intact, made_alone_if_possible
from graftlab.console import console, say
from graftlab.files.building import scratch_folder
from graftlab.files.checksums import checksum_of, write_checksums
from graftlab.objectives.policy import Policy
from graftlab.packing.loader import PackedLoader
from graftlab.packing.mismatched import mismatched
from graftlab.packing.plan import plan_rows
from graftlab.progress import Progress
from graftlab.registry import dump

if TYPE_CHECKING:
    from graftlab.adapters.base import Adapter
    from graftlab.models.base import Base
    from graftlab.text.encode import TokenSet
    from graftlab.training.setup import Setup

FILE = "logps.npy"
_CODE = ("models", "packing", "objectives/policy.py", "training/reference.py")
"""What decides the numbers, below the package."""


def resolve_reference(setup: Setup, base: Base, adapter: Adapter | None) -> None:
    """Give all token sets of a run the reference's log-probabilities, where its objective asks.

    `adapter` is attached and as it was made; None where the base is bare and is the reference.
    """
    found = _sets(setup)
    if not found:
        return
    source = _started(setup, adapter)
    with nullcontext() if adapter is None or source is not None else adapter.disabled():
        work = _Pass(setup, base, source)
        made = [work.resolve(tokens, name) for name, tokens in found.items()]
    if setup.writes:
        what = "the adapter that training goes on from" if source else "the base"
        how = "computed in one pass" if any(made) else "as an earlier run computed them"
        say(f"reference: {what}; its log-probabilities are {how}.")


def blank_reference(setup: Setup) -> None:
    """Zeros in place of what the reference says, where passes are only timed."""
    for tokens in _sets(setup).values():
        assert tokens.segment_offsets is not None
        tokens.reference = np.zeros(int(tokens.segment_offsets[-1]), np.float32)


def _sets(setup: Setup) -> dict[str, TokenSet]:
    """The sets that need a reference, by a name for people; mismatched ones are made here."""
    objective, plan = setup.spec.objective, setup.plan
    if not objective.needs_reference:
        return {}
    loaders = {"train": plan.train, **({"valid": plan.valid} if plan.valid else {})}
    found = {name: loader.tokens for name, loader in loaders.items()}
    for name, loader in loaders.items() if objective.needs_mismatched else ():
        if loader.mismatched is None:
            limit = setup.spec.packing.max_length
            loader.mismatched = mismatched(loader.tokens, max_length=limit)
        found[f"{name}, answers mixed"] = loader.mismatched
    return found


def _started(setup: Setup, adapter: Adapter | None) -> str | None:
    """A hash of the weights that training goes on from; None where it begins with the base."""
    if setup.spec.lora.from_run is None:
        return None
    assert adapter is not None
    digest = hashlib.sha256(json.dumps(adapter.config_dict(), sort_keys=True).encode())
    for name, tensor in adapter.state_dict().items():
        digest.update(f"{name} {checksum_of(tensor.view(torch.uint8).numpy().tobytes())}".encode())
    return digest.hexdigest()


class _Pass:
    """The reference's pass over token sets, or what is kept of an earlier one."""

    def __init__(self, setup: Setup, base: Base, source: str | None) -> None:
        self.setup, self.base, self.source = setup, base, source

    def resolve(self, tokens: TokenSet, name: str) -> bool:
        """Fill `tokens.reference`; whether it had to be computed.

        Of several processes the first computes, and the others wait for it.
        """
        home = default_cache() / f"reference-{self._key(tokens)}"
        with made_alone_if_possible(home):
            tokens.reference = _read(home)
            if tokens.reference is not None:
                return False
            tokens.reference = self._compute(tokens, name)
            with suppress(OSError):  # a cache that takes nothing: the next run computes them anew
                _publish(home, tokens.reference)
        return True

    def _key(self, tokens: TokenSet) -> str:
        setup = self.setup
        told = [
            *(_code_hash(), torch.__version__, self.base.fingerprint, self.base.backend),
            *(self.source, tokens.fingerprint, setup.precision.name, setup.place.device.type),
            dump(setup.spec.packing),
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def _compute(self, tokens: TokenSet, name: str) -> np.ndarray:
        """Log-probabilities of the labels of each segment, 0 for documents that were left out."""
        setup = self.setup
        rows = plan_rows(tokens.lengths.tolist(), setup.spec.packing)
        loader = PackedLoader(tokens, rows, batch_size=1, seed=None)
        assert tokens.segment_offsets is not None, "its documents have answers of some kind"
        found = np.zeros(int(tokens.segment_offsets[-1]), np.float32)
        policy, shown = Policy(self.base, None), setup.writes
        bar = Progress(f"reference ({name})", total=len(rows), console=console(), shown=shown)
        with bar, torch.no_grad(), self._evaluating():
            for row, batch in zip(rows, loader, strict=True):
                sums, _ = policy.segment_logps(batch.to(setup.place.device))
                places = [np.arange(len(found))[tokens.segments_of(index)] for index in row]
                found[np.concatenate(places)] = sums.cpu().numpy()
                bar.advance()
        return found

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        quiet: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
        with self.base.evaluating(), quiet, self.setup.precision.autocast():
            yield


def _read(home: Path) -> np.ndarray | None:
    """What is kept; a folder that is not as it was written is named, and made anew."""
    if not is_intact(home):
        return None
    with suppress(OSError, ValueError):
        found: np.ndarray = np.load(home / FILE, allow_pickle=False)
        return found
    return None


def _publish(home: Path, logps: np.ndarray) -> None:
    """Keep an array; a folder that was damaged gives way. Raises OSError."""
    import shutil

    with scratch_folder(home) as draft:
        np.save(draft / FILE, logps, allow_pickle=False)
        write_checksums(draft)
        shutil.rmtree(home, ignore_errors=True)
        os.rename(draft, home)


@cache
def _code_hash() -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in _CODE:
        place = package / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
