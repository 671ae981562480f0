"""A GGUF file read back by our own reader, and compared with what training knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from graftlab.errors import ModelError
from graftlab.exports.gguf.draft import Draft
from graftlab.exports.gguf.kinds import bits
from graftlab.exports.gguf.quantising import PROGRAM, made_here
from graftlab.exports.parity.rows import CONVERSATIONS
from graftlab.exports.target import compare
from graftlab.models.gguf.file import GGUFFile, map_file, read_gguf
from graftlab.models.gguf.spec import describe
from graftlab.models.gguf.weights import read_parameter
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.text.load import load_tokenizer
from graftlab.types import Message

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.text.tokenizer import Tokenizer

CPU = torch.device("cpu")
ERRORS = {"F32": 0.0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 0.02, "Q6_K": 0.05, "Q5_K": 0.1}
ERRORS |= {"Q5_0": 0.1, "Q5_1": 0.1, "Q4_K": 0.2, "Q4_0": 0.2}
"""Largest root mean square error of a matrix that a type explains, in units of its values."""
TEXTS = (
    "It's 1984: don't panic!  Two  spaces,\ta tab,\r\nand I'LL go.\n\n\n",
    "def f(x):\n    return x ** 2 if x != 3.14159 else [1_000]\n",
    "Größe, naïve, déjà-vu — “quotes” … 漢字とかな 한국어 Привет мир مرحبا हिन्दी ไทย",
    " leading and trailing 🎵🎶 👩‍👩‍👧 ½ Ⅷ ١٢٣ ",
    "https://example.org/a?b=c&d=%20 SNAKE_case camelCase HelloWorld 12345678",
)
"""What a tokenizer may split in another way: numbers, scripts, spaces, apostrophes."""


def compare_weights(draft: Draft, path: Path) -> str:
    """What is said of metadata and tensors. Raises ModelError where they are others."""
    file = read_gguf(path)
    if file.tensors.keys() != draft.entries.keys():
        raise ModelError(f"{path.name} holds other tensors than were written.")
    wrong = [
        key for key, value in draft.metadata.items() if not _told(file.metadata.get(key), value)
    ]
    if wrong:
        raise ModelError(f"{path.name} says otherwise of {', '.join(wrong[:3])} than was written.")
    data = torch.from_numpy(map_file(path))
    errors: dict[str, float] = {}
    maker = "graftlab" if made_here(draft.kinds) else PROGRAM

    def pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, entry in file.tensors.items():
            found = data[entry.offset : entry.offset + entry.num_bytes]
            if name in draft.tables:
                yield name, found, torch.from_numpy(draft.tables[name])
        for parameter, name in draft.names.items():
            entry, wanted = file.tensors[name], draft.model.tensor(parameter)
            found = data[entry.offset : entry.offset + entry.num_bytes]
            if made_here({draft.entries[name].kind}):
                yield name, found, torch.from_numpy(draft.blocks(parameter))
            if entry.dtype not in ERRORS:
                raise ModelError(f"{path.name}: {name} is {entry.dtype}, which nobody asked for.")
            error = _error(read(file, parameter), wanted)
            if not error <= ERRORS[entry.dtype] + 1e-6:
                raise ModelError(
                    f"{path.name}: {name} reads as another matrix than was merged (error "
                    f"{error:.2g}, and {entry.dtype} explains {ERRORS[entry.dtype]:.2g}). This is "
                    f"a mistake of {maker}; nothing was kept."
                )
            if len(entry.shape) > 1:
                errors[entry.dtype] = max(error, errors.get(entry.dtype, 0.0))

    count = compare(pairs(), path.parent)
    said = ", ".join(f"{kind} {error:.1g}" for kind, error in sorted(errors.items()))
    return (
        f"{len(draft.model.changes)} of {count} tensors changed; all {count} read back equal; "
        f"{bits(draft.entries):.2f} bits a weight, largest error of a matrix by type: {said}"
    )


def compare_texts(draft: Draft, path: Path) -> str:
    """What is said of the tokenizer. Raises ModelError where the file gives other ids."""
    trained = draft.model.trained.load_tokenizer()
    with _described(read_gguf(path)) as folder:
        own = load_tokenizer(folder)
        wanted, found = (_ids(tokenizer) for tokenizer in (trained, own))
        for ids, others in zip(wanted, found, strict=True):
            if ids != others:
                both = zip(ids, others, strict=False)
                place = next((n for n, (one, two) in enumerate(both) if one != two), -1)
                ours, theirs = trained.pieces(ids)[place], own.pieces(others)[place]
                raise ModelError(
                    f"{path.name} splits text otherwise than training did: token {place} is "
                    f"{theirs!r}, not {ours!r}. llama.cpp has no rule for this tokenizer; "
                    "target=merged writes a folder, which keeps it as it is."
                )
    return f"tokens as in training, in {len(wanted)} texts and conversations"


def read(file: GGUFFile, parameter: str) -> Tensor:
    """A parameter in fp32, as our reader gives it."""
    found = read_parameter(file, parameter, dtype=torch.float32, device=CPU)
    return found.wide() if isinstance(found, QuantizedWeight) else found


def _ids(tokenizer: Tokenizer) -> list[list[int]]:
    turns = [(Message("user", asked), Message("assistant", said)) for asked, said in CONVERSATIONS]
    chats = [tokenizer.render(turn, generation_prompt=False) for turn in turns]
    return [*tokenizer.encode_text(TEXTS), *chats]


@contextmanager
def _described(file: GGUFFile) -> Iterator[Path]:
    with TemporaryDirectory() as place:
        describe(file, Path(place))
        yield Path(place)


def _error(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, in units of that of the values."""
    norm = float(torch.linalg.vector_norm(wanted))
    return float(torch.linalg.vector_norm(found - wanted)) / (norm or 1.0)


def _told(found: object, wanted: object) -> bool:
    """Whether a value of metadata is the one that was written, in fp32."""
    if isinstance(wanted, float) and isinstance(found, float):
        return torch.tensor(wanted).float().item() == found
    return found == wanted or wanted is None
