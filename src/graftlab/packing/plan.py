"""Which documents share a row: bin packing over lengths, integers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graftlab.errors import require_choice, require_range

STRATEGIES = ("auto", "none", "first-fit", "best-fit")


@dataclass(kw_only=True, slots=True)
class Packing:
    """`packing=auto|none|first-fit|best-fit`."""

    strategy: str = "auto"
    """none: one document a row; first-fit and best-fit: several, first or tightest row first;
    auto: best-fit, and none where the base has layers that carry state along the row."""
    max_length: int = 2048
    """Longest row in tokens; a longer document is dropped or refused (data.over_limit)."""
    share_prompts: bool = True
    """Lay the prompt of a pair once for both answers; false: once for each, to compare."""

    def __post_init__(self) -> None:
        require_choice("packing.strategy", self.strategy, STRATEGIES)
        require_range("packing.max_length", self.max_length, least=2)


def plan_rows(lengths: Sequence[int], packing: Packing) -> list[list[int]]:
    """Document indices of each row; every document in exactly one row, indices ascending in it.

        lengths [5, 3, 4, 2], max_length 8   ->   best-fit   [[0, 1], [2, 3]]
                                                  none       [[0], [1], [2], [3]]

    first-fit takes the documents in their given order and fills the first row with room;
    best-fit takes the longest first and fills the row that it leaves least room in. Both depend on
    nothing but their arguments. About 2 us (best-fit) or 6 us (first-fit) a document. `auto` is
    taken for best-fit.
    """
    sizes = [int(length) for length in lengths]
    assert all(0 < size <= packing.max_length for size in sizes), "over_limit is applied before"
    if packing.strategy == "none":
        return [[index] for index in range(len(sizes))]
    place = _first_fit if packing.strategy == "first-fit" else _best_fit_decreasing
    rows = place(sizes, packing.max_length)
    for row in rows:
        row.sort()
    return rows


def density(lengths: Sequence[int], rows: Sequence[Sequence[int]], max_length: int) -> float:
    """Share of `len(rows) * max_length` positions that hold a token, in 0..1 (0 without rows)."""
    used = sum(int(lengths[index]) for row in rows for index in row)
    return used / (len(rows) * max_length) if rows else 0.0


def _best_fit_decreasing(sizes: list[int], limit: int) -> list[list[int]]:
    """Rows are kept by the room they have left; bit r of `rooms` says that such rows exist.

    The tightest row for a document is the lowest set bit at or above its size: one shift of a
    `limit`-bit integer in place of a search tree.
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(limit + 1)]
    rooms = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[index]
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = limit, len(rows)
            rows.append([])
        rows[row].append(index)
        left = room - size
        by_room[left].append(row)
        rooms |= 1 << left
    return rows


def _first_fit(sizes: list[int], limit: int) -> list[list[int]]:
    """A max-tree over the rows' room; a row not yet opened is a leaf with all of its room.

    tree[1] = max of all, tree[i] = max(tree[2i], tree[2i + 1]), row r is leaf `leaves + r`
    """
    leaves = 1 << max(len(sizes) - 1, 0).bit_length()
    tree = [limit] * (2 * leaves)
    rows: list[list[int]] = []
    for index, size in enumerate(sizes):
        node = 1
        while node < leaves:
            node *= 2
            if tree[node] < size:
                node += 1
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        tree[node] -= size
        while node > 1:
            node //= 2
            largest = max(tree[2 * node], tree[2 * node + 1])
            if tree[node] == largest:
                break
            tree[node] = largest
    return rows
