"""`draft.mil` and `draft_weights.bin`: a draft model's weights put into a program of Apple's.

Which weight of the program is which parameter of the draft is not public. What the program itself
says is used: every weight in it has a name, a shape and a place in the weights file.

    tensor<fp16, [2048, 512]> w = const()[name = string("layers_0_linear_weight"),
        val = tensor<fp16, [2048, 512]>(BLOBFILE(path = ..., offset = uint64(64)))];
    ... = constexpr_lut_to_dense()[name = ..., indices = tensor<uint4, ...>(BLOBFILE(...)),
        lut = tensor<fp16, [1, 1, 16, 1]>(BLOBFILE(...))];

Where every parameter finds a weight of its name and shape, the bytes are replaced in place, and
nothing else of the two files changes; where one does not, nothing is written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.apple.exports import blob
from graftlab.apple.exports.afm7 import COUNT, HEAD
from graftlab.apple.exports.package import DRAFT, DRAFT_WEIGHTS
from graftlab.errors import ModelError, listed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TEMPLATES = ("weights_template.bin", DRAFT_WEIGHTS)
"""What the weights that come with `draft.mil` may be called."""

_NAMED = re.compile(r'name\s*=\s*(?:tensor<string,\s*\[\]>|string)\("([^"]*)"\)')
_BLOB = re.compile(
    r"(\w+)\s*=\s*tensor<\w+,\s*\[([\d,\s]*)\]>\(BLOBFILE\([^;]*?"
    r"offset\s*=\s*(?:tensor<uint64,\s*\[\]>|uint64)\((\d+)\)\)\)"
)
_SUFFIX = re.compile(r"(_to_fp16|_palettized|_quantized)+$")


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of the program: name, shape, and where its records lie by role (val, lut ...)."""

    name: str
    shape: tuple[int, ...]
    places: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """A program with its weights file, and the parameter that goes into each weight."""

    program: Path
    template: Path
    matched: tuple[tuple[Weight, Tensor], ...]

    def write(self, folder: Path) -> None:
        """Both files into `folder`, the weights replaced."""
        shutil.copyfile(self.program, folder / DRAFT)
        shutil.copyfile(self.template, folder / DRAFT_WEIGHTS)
        with (folder / DRAFT_WEIGHTS).open("r+b") as file:
            for _, record, data in self._replaced(self.template):
                file.seek(record.offset)
                file.write(data)

    def verify(self, folder: Path) -> int:
        """Read every weight back; how many there are. Raises ModelError when one differs."""
        file = folder / DRAFT_WEIGHTS
        with file.open("rb") as stream:
            for name, record, data in self._replaced(file):
                stream.seek(record.offset)
                if stream.read(record.num_bytes) != data:
                    raise ModelError(f"{file.name}: {name} was not read back as written.")
        return len(self.matched)

    def _replaced(self, file: Path) -> Iterator[tuple[str, blob.Record, bytes]]:
        """Every record of the draft in a weights file: its weight, and the bytes it holds."""
        records = {record.place: record for record in blob.read(file)}
        for weight, tensor in self.matched:
            for role, data in payload(weight, tensor, records).items():
                record = records[weight.places[role]]
                assert len(data) == record.num_bytes, (weight, role)
                yield weight.name, record, data


def pair_of(state: Mapping[str, Tensor], folder: Path) -> Pair:
    """The pair in `folder`, and which of its weights each parameter of `state` replaces.

    Raises ModelError for half a pair, and naming parameters that have no weight of their own.
    """
    program, template = _files(folder)
    weights = list(read_program(program))
    parameters = {_plain(name): tensor for name, tensor in state.items() if _is_weight(name)}
    records = {record.place: record for record in blob.read(template)}
    matched, problems = [], []
    homeless = set(parameters)
    for weight in weights:
        name = _parameter(weight.name, parameters)
        if name is None:
            continue
        tensor = parameters[name]
        homeless.discard(name)
        problem = _misfit(weight, tensor, records)
        if problem:
            problems.append(f"{weight.name} {problem}")
        matched.append((weight, tensor))
    problems += [f"{name} has no weight of its name" for name in sorted(homeless)]
    if problems or not matched:
        raise ModelError(
            f"{program} does not take this draft: {listed(problems, 4, '; ')}. Which weight is "
            "which is known only by its name, and none is guessed. Export without target.draft."
        )
    return Pair(program, template, tuple(matched))


def read_program(path: Path) -> Iterator[Weight]:
    """The weights that a MIL program reads from its weights file."""
    for statement in path.read_text(encoding="utf-8").split(";"):
        named = _NAMED.search(statement)
        found = _BLOB.findall(statement)
        if named is None or not found:
            continue
        role = next((f for f in found if f[0] in ("val", "indices")), found[0])
        shape = tuple(int(size) for size in role[1].split(",") if size.strip())
        yield Weight(named[1], shape, {name: int(place) for name, _, place in found})


def payload(weight: Weight, tensor: Tensor, records: Mapping[int, blob.Record]) -> dict[str, bytes]:
    """Role -> the bytes of the record: half precision, or a palette and codes into it."""
    import numpy as np

    values = tensor.detach().float().numpy().ravel()
    if "val" in weight.places:
        return {"val": values.astype("<f2").tobytes()}
    bits = blob.BITS[records[weight.places["indices"]].dtype]
    palette, codes = cluster(values, 2**bits)
    flags = np.unpackbits(codes[:, None], axis=1, count=bits, bitorder="little")
    packed = np.packbits(flags, bitorder="little").tobytes()
    return {"lut": palette.astype("<f2").tobytes(), "indices": packed}


def cluster(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` values that stand for all (k-means in one dimension), and which stands for which.

    Lloyd's iteration from evenly spaced quantiles, over the distinct values in half precision, of
    which there are few; the same values give the same palette.
    """
    import numpy as np

    points, origin, sizes = np.unique(
        values.astype(np.float16), return_inverse=True, return_counts=True
    )
    points = points.astype(np.float64)
    centres = np.quantile(values, (np.arange(count) + 0.5) / count)
    codes = np.zeros(len(points), dtype=np.intp)
    for _ in range(300):
        before = codes
        codes = np.searchsorted((centres[1:] + centres[:-1]) / 2, points)
        if np.array_equal(codes, before):
            break
        weights = np.bincount(codes, weights=sizes, minlength=count)
        sums = np.bincount(codes, weights=sizes * points, minlength=count)
        centres = np.sort(np.where(weights > 0, sums / np.maximum(weights, 1), centres))
    return centres, codes.astype(np.uint8)[origin]


def _files(folder: Path) -> tuple[Path, Path]:
    program = folder / DRAFT
    template = next((folder / name for name in TEMPLATES if (folder / name).is_file()), None)
    if program.is_file() and template is not None:
        return program, template
    there = DRAFT if program.is_file() else template.name if template else "neither"
    raise ModelError(
        f"{folder} holds {there} of {DRAFT} and {TEMPLATES[0]}, and a draft needs both: they come "
        "with Apple's toolkit. target.draft_template=DIR names their folder."
    )


def _is_weight(name: str) -> bool:
    """Whether the name is a weight's: not a quantiser's range, nor the head, which is tied."""
    return name != HEAD and not name.endswith((COUNT, ".range"))


def _plain(name: str) -> str:
    return name.replace(".wrapped", "").replace(".", "_")


def _parameter(name: str, parameters: Mapping[str, Tensor]) -> str | None:
    """The parameter that a weight of the program is named after, with or without a prefix."""
    plain = _SUFFIX.sub("", name)
    fitting = [known for known in parameters if plain == known or plain.endswith(f"_{known}")]
    return max(fitting, key=len, default=None)


def _misfit(weight: Weight, tensor: Tensor, records: Mapping[int, blob.Record]) -> str | None:
    """Why the parameter cannot take the weight's place; None when it can."""
    import torch

    def sizes(shape: tuple[int, ...]) -> list[int]:
        return [size for size in shape if size != 1]

    if sizes(weight.shape) != sizes(tuple(tensor.shape)):
        return f"has shape {weight.shape}, the draft's is {tuple(tensor.shape)}"
    absent = [place for place in weight.places.values() if place not in records]
    if absent:
        return f"lies at byte {absent[0]}, where the weights file has no record"
    half = {role: records[place].dtype == blob.FP16 for role, place in weight.places.items()}
    if half.get("val"):
        fits = torch.isfinite(tensor.half()).all()
        return None if fits else "has values that half precision cannot hold"
    if not half.get("lut") or "indices" not in half:
        return f"is stored as {', '.join(weight.places)}: neither fp16 nor one palette"
    bits = blob.BITS[records[weight.places["indices"]].dtype]
    if records[weight.places["lut"]].elements != 2**bits:
        return "has several palettes, and one is written"
    return None
