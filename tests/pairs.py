"""Preference data in miniature: token sets laid by hand, and the same answers as padded rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from graftlab.packing.loader import PackedLoader
from graftlab.text.encode import TokenSet
from graftlab.text.memmap_writer import fingerprint
from graftlab.training.setup import Data
from graftlab.types import CHOSEN, IGNORE, PLAIN, REJECTED

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from graftlab.training.spec import TrainSpec
    from graftlab.types import Batch

Pair = tuple[list[int], list[int], list[int]]
"""Ids of a prompt, of the chosen answer and of the rejected one."""
Answer = tuple[list[int], list[int], bool]
"""Ids of a prompt and an answer, and whether the answer is desirable."""


Segment = tuple[list[int], list[int], int, int]
"""Ids, labels, parent and kind."""


def some_pairs(count: int, *, seed: int = 0, vocab_size: int = 400) -> list[Pair]:
    """Random ones, of lengths that all differ."""
    rng = np.random.default_rng(seed)

    def words(low: int, high: int) -> list[int]:
        return rng.integers(3, vocab_size, int(rng.integers(low, high))).tolist()

    return [(words(6, 20), words(3, 9), words(3, 9)) for _ in range(count)]


def some_answers(count: int, *, seed: int = 0) -> list[Answer]:
    """The chosen and the rejected answers of random pairs in turn, both kinds among them."""
    pairs = some_pairs(count, seed=seed)
    return [(p, c if n % 3 else r, n % 3 != 0) for n, (p, c, r) in enumerate(pairs)]


def pair_set(pairs: list[Pair], *, shared: bool = True) -> TokenSet:
    """One document for each pair, its prompt laid once or (`shared=False`) for each answer."""
    return _token_set([_pair(*pair, shared=shared) for pair in pairs])


def _pair(
    prompt: list[int], chosen: list[int], rejected: list[int], *, shared: bool
) -> list[Segment]:
    sides = [(chosen, CHOSEN), (rejected, REJECTED)]
    if not shared:
        return [_root(prompt, answer, kind) for answer, kind in sides]
    opening = (prompt[:-1], [IGNORE] * (len(prompt) - 1), -1, PLAIN)
    return [opening, *(([prompt[-1], *a[:-1]], a, 0, kind) for a, kind in sides)]


def _root(prompt: list[int], answer: list[int], kind: int) -> Segment:
    return [*prompt, *answer[:-1]], [*[IGNORE] * (len(prompt) - 1), *answer], -1, kind


def answer_set(answers: list[Answer]) -> TokenSet:
    """One document of one segment for each answer."""
    return _token_set(
        [[_root(prompt, answer, CHOSEN if good else REJECTED)] for prompt, answer, good in answers]
    )


def _token_set(documents: list[list[Segment]]) -> TokenSet:
    segments = [segment for document in documents for segment in document]
    ids, labels = (
        np.array([one for segment in segments for one in segment[side]], np.int32)
        for side in (0, 1)
    )
    lengths = [sum(len(segment[0]) for segment in document) for document in documents]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    counts = [len(document) for document in documents]
    columns = {
        "input_ids": ids,
        "labels": labels,
        "offsets": offsets,
        "segments": np.array([[len(s[0]), s[2], s[3]] for s in segments], np.int32),
        "segment_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    }
    return TokenSet(
        **columns,
        parts=np.zeros((len(documents), 3), np.int32),
        sources=np.arange(len(documents), dtype=np.int32),
        fingerprint=fingerprint(columns),
    )


def preference_data(spec: TrainSpec, *_: Any, **__: Any) -> Data:
    """Eleven pairs or answers as the objective takes them; four of them are validated on, too."""
    if spec.objective.takes == "pairs":
        sets = [pair_set(pairs) for pairs in (some_pairs(11), some_pairs(11)[:4])]
    else:
        sets = [answer_set(answers) for answers in (some_answers(11), some_answers(11)[:4])]
    return Data(spec.model.load_tokenizer(), *sets, [])


def preference_file(path: Path, takes: str, *, count: int = 11) -> Path:
    """Rows of JSONL: pairs of a prompt, or answers with a label, some good and some bad."""
    rows = []
    for n in range(count):
        prompt, good, bad = f"What is {n} and {n % 3}?", f"It is {n + n % 3}.", f"No {n} idea."
        if takes == "pairs":
            rows.append({"prompt": prompt, "chosen": good, "rejected": bad})
        else:
            label = n % 3 != 1
            rows.append({"prompt": prompt, "completion": good if label else bad, "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loader(tokens: TokenSet, *, rows: list[list[int]], **options: Any) -> PackedLoader:
    """The rows in their order, each document counted once."""
    given = {"batch_size": len(rows), "seed": None, **options}
    return PackedLoader(tokens, rows, units=np.ones(len(tokens)), **given)


def one_batch(tokens: TokenSet) -> Batch:
    """All documents in one row."""
    return next(iter(loader(tokens, rows=[[*range(len(tokens))]])))


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, ...]:
    """Ids, attention mask and labels (-100) of (prompt, answer) rows, padded at the right."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for place, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[place, :end] = torch.tensor([*prompt, *answer])
        mask[place, :end] = 1
        labels[place, len(prompt) : end] = torch.tensor(answer)
    return ids, mask, labels
