"""The loader: every document once an epoch, resumable anywhere, the same steps in every shape."""

from __future__ import annotations

import numpy as np
import pytest

from graftlab.packing.loader import PackedLoader
from graftlab.packing.rows import make_batch
from graftlab.text.encode import TokenSet
from graftlab.types import CHOSEN, IGNORE, PLAIN, REJECTED


def token_set(lengths: list[int]) -> TokenSet:
    """Documents whose tokens name them; the second half of each is labelled."""
    ids = np.concatenate([np.full(n, i) for i, n in enumerate(lengths)]).astype(np.int32)
    labels = np.concatenate(
        [np.where(np.arange(n) >= n // 2, i, IGNORE) for i, n in enumerate(lengths)]
    ).astype(np.int32)
    count = len(lengths)
    return TokenSet(
        input_ids=ids,
        labels=labels,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        parts=np.zeros((count, 3), np.int32),
        sources=np.arange(count, dtype=np.int32),
        fingerprint="f",
    )


TOKENS = token_set([3, 5, 2, 7, 4, 6, 3, 8, 2, 5, 4])
ROWS = [[0, 1], [2], [3, 4, 5], [6], [7], [8, 9], [10]]


def loader(**changes) -> PackedLoader:
    return PackedLoader(TOKENS, ROWS, **{"batch_size": 2, "accumulate": 2, "seed": 1, **changes})


def signature(batch) -> tuple:
    return (tuple(batch.input_ids[0].tolist()), batch.step_units, batch.micro_step, batch.ends_step)


def test_batches_are_flat_rows_without_padding():
    batch = make_batch(TOKENS, [2, 3, 0], step_units=5)
    assert batch.input_ids.tolist() == [[2, 2] + [3] * 7 + [0] * 3]
    assert batch.positions.tolist() == [[0, 1, *range(7), *range(3)]]
    assert batch.boundaries.tolist() == [0, 2, 9, 12]
    assert [batch.input_ids[0, s].unique().tolist() for s in batch.documents()] == [[2], [3], [0]]


def test_a_batch_without_documents_is_one_unlabelled_position():
    batch = make_batch(TOKENS, [], step_units=5)
    assert batch.num_tokens == 1
    assert batch.labels.tolist() == [[IGNORE]]


def test_an_epoch_holds_every_document_once_in_an_order_of_its_own():
    one = loader()
    epochs = [[b.input_ids[0].tolist() for b in one] for _ in range(2)]
    for epoch in epochs:
        counts = np.bincount(np.concatenate(epoch), minlength=len(TOKENS))
        assert counts.tolist() == TOKENS.lengths.tolist()
    assert epochs[0] != epochs[1]
    assert [signature(b) for b in loader()] == [signature(b) for b in loader()]


@pytest.mark.parametrize("stop", range(1, 9))
def test_resuming_anywhere_goes_on_with_the_next_batch(stop):
    def stream(source, count):
        seen = []
        while len(seen) < count:
            for batch in source:
                seen.append(signature(batch))
                if len(seen) == count:
                    return seen
        return seen

    whole = stream(loader(), 12)
    first = loader()
    begun = stream(first, stop)
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + stream(second, 12 - stop) == whole


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 4), (2, 2), (4, 1)])
def test_steps_are_the_same_documents_and_units_in_every_shape(batch_size, accumulate):
    def steps(source):
        found, current = [], []
        for batch in source:
            current.append(batch)
            if batch.ends_step:
                labels = sum(int((b.labels != IGNORE).sum()) for b in current)
                assert {b.step_units for b in current} == {labels}
                assert [b.micro_step for b in current] == list(range(len(current)))
                found.append(sorted(t for b in current for t in b.input_ids[0].tolist()))
                current = []
        assert not current
        return found

    reference = steps(loader(batch_size=4, accumulate=1))
    assert len(reference) == 2  # 7 rows: the second step is a short one
    assert steps(loader(batch_size=batch_size, accumulate=accumulate)) == reference


def test_ranks_share_the_rows_and_agree_on_the_steps():
    alone = list(loader(batch_size=2, accumulate=2))
    ranks = [list(loader(batch_size=1, accumulate=2, rank=r, world_size=2)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(alone)
    empty = 0
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert {part.step_units for part in parts} == {whole.step_units}
        ids = []
        for part in parts:
            labelled = bool((part.labels != IGNORE).any())
            empty += not labelled
            ids += part.input_ids[0].tolist() if labelled else []
        assert sorted(ids) == sorted(whole.input_ids[0].tolist())
    assert empty == 1  # seven rows over two ranks: one had none left


def test_without_a_seed_the_order_is_the_rows():
    ids = [b.input_ids[0].tolist() for b in loader(seed=None, batch_size=1, accumulate=1)]
    assert [list(dict.fromkeys(row)) for row in ids] == ROWS


def branched_set() -> TokenSet:
    """A plain document, a pair, and a row of one kind: segments of 4 | 3 2 1 | 2 tokens."""
    tokens = token_set([4, 6, 2])
    tokens.segments = np.array(
        [[4, -1, PLAIN], [3, -1, PLAIN], [2, 0, CHOSEN], [1, 0, REJECTED], [2, -1, REJECTED]],
        np.int32,
    )
    tokens.segment_offsets = np.array([0, 1, 4, 5])
    tokens.weights = np.linspace(0, 1, 12, dtype=np.float32)
    tokens.reference = np.arange(5, dtype=np.float32)
    return tokens


def test_branches_go_on_where_their_prompt_ends():
    batch = make_batch(branched_set(), [1, 0, 2, 1], step_units=5).to("cpu")
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, *range(4), 0, 1, 0, 1, 2, 3, 4, 3]]
    assert batch.boundaries.tolist() == [0, 3, 5, 6, 10, 12, 15, 17, 18]
    assert batch.parents.tolist() == [-1, 0, 0, -1, -1, -1, 5, 5]
    assert batch.owners.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert batch.kinds.tolist() == [0, 1, 2, 0, 2, 0, 1, 2]
    assert batch.reference.tolist() == [1, 2, 3, 0, 4, 1, 2, 3]
    assert batch.weights.shape == (1, 18)
    places = [(place.start, place.stop) for place in batch.documents()]
    assert places == [(0, 6), (6, 10), (10, 12), (12, 18)]
    assert len(list(batch.segments())) == 8


def test_a_batch_without_branches_is_of_the_same_form_in_a_set_with_some():
    tokens = branched_set()
    assert make_batch(tokens, [0, 2], step_units=5).parents.tolist() == [-1, -1]
    empty = make_batch(tokens, [], step_units=5)
    assert (empty.kinds.tolist(), empty.parents.tolist()) == ([PLAIN], [-1])
    assert empty.reference.tolist() == [0]
    assert empty.weights.shape == (1, 1)
    assert empty.count("document") == empty.count("label") == 0


def test_a_picked_set_finds_its_segments():
    tokens = branched_set()
    whole = make_batch(tokens, [1, 2], step_units=5)
    tokens.picked = np.array([1, 2])
    batch = make_batch(tokens, [0, 1], step_units=5)
    assert batch.boundaries.tolist() == whole.boundaries.tolist()
    assert batch.reference.tolist() == whole.reference.tolist() == [1, 2, 3, 4]


def test_steps_are_divided_by_weights_or_by_what_is_asked_for():
    tokens, rows = branched_set(), [[0, 2], [1]]

    def units(**options) -> list[float]:
        loader = PackedLoader(tokens, rows, batch_size=1, seed=None, **options)
        batches = list(loader)
        assert sum(batch.count("document") for batch in batches) == 3
        return [batch.step_units for batch in batches]

    labels = [(tokens[i].labels != IGNORE) @ tokens[i].weights for i in range(3)]
    assert units() == pytest.approx([labels[0] + labels[2], labels[1]])
    assert units(units=np.ones(3, np.int64)) == [2, 1]
    tokens = branched_set()
    tokens.weights = None
    assert units() == [3, 3]


def test_without_branches_anywhere_no_batch_has_parents():
    tokens = branched_set()
    tokens.segments[:, 1] = -1
    batch = make_batch(tokens, [1], step_units=5)
    assert batch.parents is None
    assert batch.kinds.tolist() == [PLAIN, CHOSEN, REJECTED]
    assert len(list(batch.documents())) == 1


def test_ranks_agree_on_the_steps_of_pairs():
    """One has no row left, and takes part with a batch of the same form."""
    tokens, rows = branched_set(), [[0], [1], [2]]
    options = {"batch_size": 1, "accumulate": 2, "seed": 3, "units": np.ones(3, np.int64)}
    ranks = [list(PackedLoader(tokens, rows, rank=r, world_size=2, **options)) for r in range(2)]
    assert [batch.step_units for batch in ranks[0]] == [3, 3]
    assert [batch.step_units for batch in ranks[1]] == [3, 3]
    counts = [[batch.count("document") for batch in batches] for batches in ranks]
    assert sum(map(sum, counts)) == 3
    assert counts[1][1] == 0
    for batch in (*ranks[0], *ranks[1]):
        tables = (batch.parents, batch.owners, batch.kinds, batch.reference)
        assert {len(table) for table in tables} == {len(batch.boundaries) - 1}
