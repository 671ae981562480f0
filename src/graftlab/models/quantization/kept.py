"""Codes on disk, by `quantization.cache=true`: a later load reads them, and no wide weight.

    CACHE/codes-<base and options>-<versions>/    model.safetensors    checksums.json

The file holds every tensor of the loaded model: those of codes as NAME:0, NAME:1, ... for their
parts, all others as they are, buffers included. Folders of other versions give way to a new one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import __version__ as transformers_version
from transformers.pytorch_utils import Conv1D

from graftlab.caches import (
    default_cache,
    is_intact,
    made_alone_if_possible,
    tell,
    tell_damage,
)
from graftlab.errors import ModelError
from graftlab.files.building import building
from graftlab.files.checksums import write_checksums
from graftlab.models.empty import place_tensors
from graftlab.models.fingerprint import fingerprint
from graftlab.models.quantization.base import Codes
from graftlab.models.quantization.loading import quantised_shapes
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.models.weights import SINGLE, copy_tensor, file_tensors, misfits, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = 1


def kept_place(folder: Path, choice: Codes, dtype: torch.dtype) -> Path:
    """Where the codes of the base in `folder` lie. Raises ModelError.

    `dtype` is what the rest of it is stored in. A fingerprint reads samples alone: files that were
    written to since, such as those of a copy that was mended, are another version of the base.
    """
    base = _hash([fingerprint(folder), choice.title, choice.head, str(dtype)])
    made_of = [[file.name, *_state(file)] for file in weight_files(folder)]
    made_by = _hash([FORMAT, _code(), torch.__version__, transformers_version, made_of])
    return default_cache() / f"codes-{base}-{made_by[:8]}"


def load_kept(
    home: Path,
    choice: Codes,
    *,
    dtype: torch.dtype,
    device: torch.device,
    make: Callable[[], PreTrainedModel],
    empty: Callable[[], PreTrainedModel],
) -> PreTrainedModel:
    """The model with the codes in `home`, put into `empty()`; where there are none, `make()`.

    What is made is kept there. Of several processes the first makes it, and the others wait.
    """

    def read() -> PreTrainedModel | None:
        if not is_intact(home):
            return None
        try:
            return _filled(empty(), home / SINGLE, choice, dtype=dtype, device=device)
        except (ModelError, OSError) as error:
            tell_damage(f"{error}: it is made anew.")
            return None

    if (found := read()) is not None:
        return found
    with made_alone_if_possible(home):
        if (found := read()) is None:  # else another process was first
            found = make()
            _keep(found, home)
    return found


def _keep(model: PreTrainedModel, home: Path) -> None:
    """Write what was made; a disk that takes none is told of, and the model serves all the same."""
    tensors = dict(_parts(model))
    try:
        with building(home) as made:
            save_file(tensors, made / SINGLE, metadata={"format": "pt"})
            write_checksums(made)
    except (OSError, SafetensorError) as error:
        tell(f"! {home} cannot be written, and the next load quantises anew: {error}")
        return
    for other in home.parent.glob(f"{home.name.rpartition('-')[0]}-*"):
        if other != home:
            shutil.rmtree(other, ignore_errors=True)
    size = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
    tell(f"The codes of the base are kept in {home} ({size:,.0f} MiB).")


def _parts(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Name in the file and content of every tensor."""
    found: list[tuple[str, Tensor]] = []
    for name, value in model.named_parameters():
        codes = value.data
        parts = _named(name, codes.parts) if isinstance(codes, QuantizedWeight) else {name: codes}
        found += [(part, tensor.cpu().contiguous()) for part, tensor in parts.items()]
    return found + [(name, buffer.cpu().clone()) for name, buffer in model.named_buffers()]


def _filled(
    model: PreTrainedModel, file: Path, choice: Codes, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """`model`, whose tensors have no values, with those of `file`.

    Raises ModelError where they are not its own.
    """
    scheme, stored = choice.scheme(), file_tensors(file)
    coded = dict(quantised_shapes(model, head=choice.head))
    rooms = {name: scheme.allocate(size, torch.device("meta")) for name, size in coded.items()}
    wanted = {
        name: part.shape for key, room in rooms.items() for name, part in _named(key, room).items()
    }
    plain = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted |= {name: value.shape for name, value in plain.items() if name not in coded}
    if problems := misfits(stored, wanted):
        raise ModelError(f"{file} holds another model's tensors ({problems[0]})")

    def value_of(name: str) -> Tensor:
        return copy_tensor(stored[name]).to(device)

    values: dict[int, Any] = {}
    for name, value in plain.items():
        if name in coded:
            parts = [value_of(part) for part in _named(name, rooms[name])]
            codes = QuantizedWeight(scheme, parts, coded[name], dtype)
            turned = isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D)
            values[id(value)] = codes.T if turned else codes
        else:
            values[id(value)] = value_of(name)
    place_tensors(model, values)
    return model


def _named(name: str, parts: Any) -> dict[str, Tensor]:
    return {f"{name}:{number}": part for number, part in enumerate(parts)}


def _state(file: Path) -> tuple[int, int, int]:
    """Size and times of the last writing; the second is the system's own, which no copy sets."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@cache
def _code() -> str:
    """Hash of the code that makes and reads the codes."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _hash(said: list[Any]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
