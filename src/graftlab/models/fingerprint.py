"""A base's fingerprint: quick for tens of gigabytes, different for another or a finetuned model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from graftlab.errors import ModelError
from graftlab.models.quantization.base import Codes, Quantization
from graftlab.models.quantization.counting import coded_names
from graftlab.models.quantization.packed import comes_as, packed_weights, plain_tensors
from graftlab.models.weights import StoredTensor, read_json, stored_tensors

BLOCK = 4096  # bytes read at each sampled place
PLACES = 8  # sampled places in a large tensor
WHOLE = 65_536  # tensors up to this many bytes are read whole

# Said by the tool that wrote the folder, not by the model.
VOLATILE = frozenset(
    {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config"}
)


def fingerprint(folder: Path, stored: Quantization | None = None) -> str:
    """16 hex digits from the config, every tensor's name, dtype and shape, and sampled bytes.

    Small tensors are hashed whole, large ones at `PLACES` evenly spread places: training changes
    nearly every element, so a single finetuned tensor shows. Editing one element of a large
    tensor by hand may not. Sharding differently does not change it. Raises ModelError.

    Of weights that are `stored` as codes, or came so, it is the values that these stand for: a
    folder that came as nf4 is the same base as the wide one under quantization=nf4, where the codes
    are the same.
    """
    config, tensors = read_json(folder / "config.json"), stored_tensors(folder)
    described = {key: value for key, value in config.items() if key not in VOLATILE}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    if (own := comes_as(config)) is not None:
        from graftlab.models.quantization.sampling import hash_packed

        packed = packed_weights(folder, tensors, own)
        hash_tensors(digest, plain_tensors(tensors, packed))
        hash_packed(digest, packed, own)
    elif isinstance(stored, Codes):
        from graftlab.models.quantization.sampling import hash_wide

        names = coded_names({name: tensor.shape for name, tensor in tensors.items()}, stored)
        hash_tensors(digest, {n: tensor for n, tensor in tensors.items() if n not in names})
        hash_wide(digest, {name: tensors[name] for name in names}, stored)
    else:
        hash_tensors(digest, tensors)
    return digest.hexdigest()[:16]


def hash_tensors(digest: hashlib._Hash, tensors: Mapping[str, StoredTensor]) -> None:
    """Add every tensor's name, dtype and shape, and sampled bytes."""
    streams = {}
    try:
        for name, tensor in sorted(tensors.items()):
            if tensor.file not in streams:
                streams[tensor.file] = tensor.file.open("rb")
            digest.update(f"\0{name}:{tensor.dtype}:{tensor.shape}\0".encode())
            for start, length in sampled_blocks(tensor):
                streams[tensor.file].seek(start)
                digest.update(streams[tensor.file].read(length))
    finally:
        for stream in streams.values():
            stream.close()


def file_digest(file: Path) -> str:
    """Hash of a whole file, read once as long as size and time stay. Raises ModelError."""
    try:
        status = file.stat()
        return _digest(str(file.resolve()), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}).") from error


@cache
def _digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def sampled_blocks(tensor: StoredTensor) -> list[tuple[int, int]]:
    """(offset, length) of the bytes of a tensor that are hashed."""
    if tensor.num_bytes <= WHOLE:
        return [(tensor.offset, tensor.num_bytes)]
    last = tensor.num_bytes - BLOCK
    return [(tensor.offset + last * place // (PLACES - 1), BLOCK) for place in range(PLACES)]
