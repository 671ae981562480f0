"""The assets folder of Apple's adapter toolkit: what lies in it, read without a second copy.

base-model.pt              a flat state dict, as `torch.save` writes it
base-model-config.json     a model of tamm, as `tamm.utils.json` writes it
tokenizer.model            SentencePiece

draft-model.pt, draft-model-config.json, draft.mil, weights_template.bin    may be there
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from graftlab.errors import ModelError
from graftlab.files.reading import read_json
from graftlab.models.fingerprint import sampled_blocks
from graftlab.models.weights import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "base-model.pt"
CONFIG = "base-model-config.json"
TOKENIZER = "tokenizer.model"
TYPES = frozenset({"models", "adapters", "ao", "layers", "torch.dtype", "torch.device"})
"""Kinds of objects that describe a model; tamm would make others from a config, too."""
INSTALL = "pip install 'graftlab[apple]'"


@dataclass(frozen=True, slots=True)
class Assets:
    """The files of one model."""

    weights: Path
    config: Path
    tokenizer: Path


def find_assets(folder: Path) -> Assets:
    """The files in `folder`. Raises ModelError naming everything that is missing at once."""
    config = _find_config(folder)
    wanted = {
        f"{WEIGHTS} (the base's weights)": (folder / WEIGHTS).is_file(),
        f"{TOKENIZER} (its SentencePiece model)": (folder / TOKENIZER).is_file(),
        f"{CONFIG} (or one other *.json that describes a model of tamm)": config is not None,
    }
    if config is None or not all(wanted.values()):
        raise ModelError(
            f"{folder} is not an assets folder of Apple's adapter toolkit: it lacks "
            f"{', '.join(name for name, there in wanted.items() if not there)}."
        )
    if not zipfile.is_zipfile(folder / WEIGHTS):
        raise ModelError(
            f"{folder / WEIGHTS} is cut off, or torch.save did not write it. Copy it again."
        )
    return Assets(folder / WEIGHTS, config, folder / TOKENIZER)


def _find_config(folder: Path) -> Path | None:
    """The config under its usual name, or the only other one that is not the draft's."""
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    others = [
        path
        for path in sorted(folder.glob("*.json"))
        if "draft" not in path.name and "models" in _types(read_plain(path))
    ]
    return others[0] if len(others) == 1 else None


def read_plain(path: Path) -> dict[str, Any] | None:
    """A config as plain JSON: keys that were left out have tamm's defaults. None if it is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_config(path: Path) -> Any:
    """The `tamm` model config in `path`, without adapters. Raises ModelError."""
    _require_tamm()
    import tamm.utils.json

    strange = sorted(_types(read_plain(path)) - TYPES)
    if strange:
        raise ModelError(f"{path} names `{strange[0]}`: that is no part of a model's description.")
    try:
        config = tamm.utils.json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # whatever the classes named in it make of their arguments
        raise ModelError(f"{path} is not a model config that tamm can read: {error}") from error
    if not hasattr(config, "create_model"):
        raise ModelError(f"{path} describes a {type(config).__name__}, not a model of tamm.")
    config.adapters = None  # an adapter is attached when a run asks for one
    return config


def _types(value: Any) -> set[str]:
    """The kinds of objects of tamm that a config asks for."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = set().union(*map(_types, inner))
    named = value.get("__tamm_type__") if isinstance(value, dict) else None
    return found if named is None else {str(named).removeprefix("tamm:").split(":")[0], *found}


def create_on_meta(config: Any) -> Any:
    """The model of `config`, without memory: every layer that takes an adapter is wrapped."""
    _require_tamm()
    import tamm.adapters

    config.device = "meta"
    model = tamm.adapters.init(config.create_model())
    model.requires_grad_(False)
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, mapped from the file, not copied. Raises ModelError."""
    import torch

    content = load_tensors(path)
    values = content.values() if isinstance(content, dict) else ()
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise ModelError(f"{path} is not a flat state dict of tensors.")
    return dict(content)


def load_tensors(path: Path) -> Any:
    """What `torch.save` wrote, mapped from the file; nothing but tensors is ever unpickled.

    Raises ModelError for other objects, and for a file that is damaged or of another kind.
    """
    import torch

    try:
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():  # torch muses about a foreign pickle before it refuses it
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if not file.read(2).startswith((b"PK", b"\x80")):
                raise ModelError(f"{path}: torch.save did not write this file.") from error
        raise ModelError(
            f"{path} holds pickled objects beside tensors, which can run code when read: it was "
            "not opened. Save only tensors: torch.save(dict of tensors, file)."
        ) from error
    except Exception as error:  # a torn file fails in zip's, pickle's or torch's own ways
        raise ModelError(
            f"{path} is cut off or damaged ({first_line(error)}). Copy it again."
        ) from error


def first_line(error: Exception) -> str:
    """The reason of an error of torch or of the system, without its traces of C++."""
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0].strip()
    return text or type(error).__name__


def write_assets(folder: Path, state: Mapping[str, Tensor], *, config: Path) -> None:
    """Weights and config into `folder`, as the toolkit's lie; a tokenizer is the caller's."""
    import shutil

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, folder / WEIGHTS)
    shutil.copyfile(config, folder / CONFIG)


def fingerprint(assets: Assets) -> str:
    """16 hex digits from the config and, of every record of the weights, its size and samples.

    Samples are taken as for other bases, and nothing is unpickled. Raises ModelError.
    """
    digest = hashlib.sha256(json.dumps(read_plain(assets.config), sort_keys=True).encode())
    try:
        with assets.weights.open("rb") as file:
            for name, record in _records(assets.weights, file):
                digest.update(f"\0{name}:{record.num_bytes}\0".encode())
                for start, length in sampled_blocks(record):
                    file.seek(start)
                    digest.update(file.read(length))
    except (OSError, zipfile.BadZipFile, struct.error) as error:
        raise ModelError(f"{assets.weights} is cut off or damaged. Copy it again.") from error
    return digest.hexdigest()[:16]


def _records(path: Path, file: BinaryIO) -> Iterator[tuple[str, StoredTensor]]:
    """The pickled outline and every storage of a torch file, by name; they are not compressed."""
    with zipfile.ZipFile(path) as archive:
        listed = sorted(archive.infolist(), key=lambda record: record.filename)
    for record in listed:
        name = record.filename.partition("/")[2]
        if name != "data.pkl" and not name.startswith("data/"):
            continue  # which torch wrote it, not what it wrote
        file.seek(record.header_offset + 26)
        lengths: tuple[int, int] = struct.unpack("<HH", file.read(4))  # of name and extra field
        start = record.header_offset + 30 + sum(lengths)
        yield name, StoredTensor(path, "", (), start, record.file_size)


def _require_tamm() -> None:
    try:
        import tamm  # noqa: F401
    except ImportError as error:
        raise ModelError(f"Apple's on-device model needs tamm: {INSTALL}") from error
