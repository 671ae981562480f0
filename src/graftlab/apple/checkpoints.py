"""The checkpoints of Apple's adapter toolkit: flat state dicts of an adapter's parameters.

    adapter-final.pt    a dict, as `torch.save` writes it
      layers.segment_0.layer_0.attention.qkv_transform.adapters.base_adapter.lora_0.a_transpose
      ...               "adapter" in every name; a_transpose (in, rank), b_transpose (rank, out)

Nothing but tensors is ever unpickled, and a file appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.lora import Lora
from graftlab.adapters.store import WEIGHTS, FileSource, FolderSource
from graftlab.apple.files import first_line, load_tensors
from graftlab.apple.targets import alpha_of, describe
from graftlab.errors import ModelError, listed
from graftlab.files.checksums import checked_file
from graftlab.files.writing import clear_leftovers

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".pt"
MARK = "adapter"
"""What the name of every tensor of an adapter holds, and of no other."""


@dataclass(frozen=True, slots=True)
class ToolkitSource(FileSource):
    """A checkpoint of Apple's toolkit: tensors alone; what else is known says the run around it."""

    def config(self) -> dict[str, Any]:
        try:
            content = describe(self.tensors())
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        lora = self.run().get("lora") or {}
        if lora.get("rank") == content["rank"]:
            said: dict[str, Any] = {k: lora.get(k) for k in ("rank", "alpha", "scale", "rslora")}
            content["alpha"] = alpha_of(Lora(**said))
        return content

    def tensors(self) -> dict[str, Tensor]:
        return read(self.path)

    def run(self) -> dict[str, Any]:
        return FolderSource(self.folder.parent).run()

    def base_fingerprint(self) -> str | None:
        adapter = self.folder.parent / "adapter"
        return FolderSource(adapter).base_fingerprint() if (adapter / WEIGHTS).is_file() else None


def read(path: Path) -> dict[str, Tensor]:
    """The adapter in a toolkit checkpoint: parameter name -> tensor on the CPU, file order.

    The tensors are mapped from the file, not copied. Raises ModelError for a file that is missing,
    torn, holds other objects than tensors, or is something else than an adapter.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}.")
    content = load_tensors(path)
    if not isinstance(content, dict) or not content:
        kind = "nothing" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ModelError(f"{path} is not a toolkit checkpoint: it holds {kind}, not tensors.")
    _check(content, str(path))
    return dict(content)


def write(state: Mapping[str, Tensor], path: Path) -> None:
    """Write `state` so that the toolkit reads it; `path` appears whole and synced, or not at all.

    Raises ModelError for what is not an adapter, and when the file cannot be written (a full disk,
    say), after which nothing of it is left and a file that stood there stands unchanged.
    """
    import torch

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _check(state, "the adapter to be written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        with checked_file(path) as draft, draft.open("wb") as file:
            torch.save({name: _compact(tensor) for name, tensor in state.items()}, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into the latter
        raise ModelError(f"{path} cannot be written: {first_line(error)}") from error


def _check(content: Mapping[Any, Any], where: str) -> None:
    """Raise ModelError, all reasons at once, unless this is a flat adapter."""
    import torch

    strangers = [str(k) for k, v in content.items() if not isinstance(v, torch.Tensor)]
    if {"adapter", "adapter_config"} <= content.keys():
        raise ModelError(f"{where} is a graftlab checkpoint; those end in .ckpt.")
    if strangers:
        raise ModelError(f"{where} is not a toolkit checkpoint: {_some(strangers)} no tensor.")
    others = [str(name) for name in content if MARK not in str(name)]
    if len(others) == len(content):
        raise ModelError(
            f"{where} holds no adapter: none of its {len(content)} tensors has '{MARK}' in its "
            "name. Is it a whole model (a base or a draft)?"
        )
    if others:
        raise ModelError(f"{where}: {_some(others)} not part of an adapter.")
    wrong = [f"{name} ({t.dtype})" for name, t in content.items() if not t.is_floating_point()]
    if wrong:
        raise ModelError(f"{where}: {_some(wrong)} not of floating-point numbers.")


def _some(names: list[str]) -> str:
    return f"{listed(names, 3)} {'is' if len(names) == 1 else 'are'}"


def _compact(tensor: Tensor) -> Tensor:
    """Without the rest of a larger storage, which torch.save would write as well."""
    shared = tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone() if shared else tensor
