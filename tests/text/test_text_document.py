"""Documents of one beginning become a tree; shifting cuts each branch after its last label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftlab.text.apart import lay_apart
from graftlab.text.cache import OPTIONAL, drafting, publish, read_arrays
from graftlab.text.document import Document, joined, of_turns, shifted
from graftlab.text.encode import TokenSet
from graftlab.text.memmap_writer import Flat, fingerprint
from graftlab.types import CHOSEN, IGNORE, PLAIN, REJECTED


def document(prompt: list[int], answer: list[int], *, weight: float | None = None) -> Document:
    """An answer that is trained, behind a prompt; a newline (9) follows it."""
    ids = np.array([*prompt, *answer, 9], np.int32)
    trained = np.zeros(len(ids), bool)
    trained[len(prompt) : -1] = True
    weights = None if weight is None else np.where(trained, weight, 0).astype(np.float32)
    parts = (1, len(prompt) - 1, len(answer) + 1)
    return Document(ids, trained, parts, weights=weights)


def pair() -> Document:
    prompt = [1, 2, 3]
    return joined([document(prompt, [4, 5]), document(prompt, [4, 6, 7])], (CHOSEN, REJECTED))


def test_a_pair_holds_its_prompt_once_and_each_branch_begins_with_its_last_token() -> None:
    found = pair()
    assert found.ids.tolist() == [1, 2, 3, 4, 5, 9, 3, 4, 6, 7, 9]
    assert found.trained.astype(int).tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert found.segments is not None
    assert found.segments.tolist() == [[2, -1, PLAIN], [4, 0, CHOSEN], [5, 0, REJECTED]]
    tokens = shifted(found)
    assert tokens.input_ids.tolist() == [1, 2, 3, 4, 3, 4, 6]
    assert tokens.labels.tolist() == [*[IGNORE] * 2, 4, 5, 4, 6, 7]
    assert tokens.segments is not None
    assert tokens.segments.tolist() == [[2, -1, PLAIN], [2, 0, CHOSEN], [3, 0, REJECTED]]


def test_answers_that_begin_alike_do_not_share_what_is_trained() -> None:
    """Each of the two is to learn its own words, the first ones too."""
    one, two = document([1, 2], [5, 6, 7]), document([1, 2], [5, 6, 8])
    tokens = shifted(joined([one, two], (CHOSEN, REJECTED)))
    assert tokens.input_ids.tolist() == [1, 2, 5, 6, 2, 5, 6]
    assert (tokens.labels != IGNORE).sum() == 6


def test_weights_and_parts_of_a_tree_are_those_of_its_answers() -> None:
    prompt = [1, 2, 3, 4]
    tree = joined(
        [
            document(prompt, [5, 6], weight=0.5),
            document(prompt, [7]),
            document([1, 2, 8], [5, 6, 7], weight=2.0),
        ],
        (CHOSEN, REJECTED, PLAIN),
    )
    assert tree.segments is not None
    assert tree.segments.dtype == np.int32
    assert tree.segments.tolist() == [
        *([1, -1, PLAIN], [2, 0, PLAIN], [4, 1, CHOSEN], [3, 1, REJECTED]),
        [6, 0, PLAIN],
    ]
    assert tree.parts == (1, 6, 9)
    tokens = shifted(tree)
    assert tokens.input_ids.tolist() == [1, 2, 3, 4, 5, 4, 2, 8, 5, 6]
    assert tokens.labels.tolist() == [*[IGNORE] * 3, 5, 6, 7, IGNORE, 5, 6, 7]
    assert tokens.weights is not None
    assert tokens.weights.dtype == np.float32
    assert tokens.weights[tokens.labels != IGNORE].tolist() == [0.5, 0.5, 1, 2, 2, 2]
    assert shifted(pair()).weights is None


def test_prompts_with_nothing_in_common_are_two_roots() -> None:
    found = joined([document([1, 2], [5]), document([3, 2], [6])], (CHOSEN, REJECTED))
    assert found.segments is not None
    assert found.segments[:, 1].tolist() == [-1, -1]


def test_turns_rendered_anew_are_a_tree_that_shares_what_it_can() -> None:
    """Later turns see the first answer without its thinking (7), as its own turn did not."""
    first = document([1, 2], [7, 4, 5])
    second = document([1, 2, 4, 5, 1, 3], [7, 6, 5])
    third = document([1, 2, 4, 5, 1, 3, 6, 5, 1, 2], [7, 8, 5])
    found = joined([first, second, third], (PLAIN,) * 3)
    assert found.segments is not None
    assert found.segments.tolist() == [
        [1, -1, PLAIN],  # 1
        [5, 0, PLAIN],  # 2 7 4 5 and what follows
        [4, 0, PLAIN],  # 2 4 5 1
        [5, 2, PLAIN],
        [9, 2, PLAIN],
    ]
    assert len(found.ids) < sum(len(one.ids) for one in (first, second, third))
    for leaf, alone in zip((1, 3, 4), (first, second, third), strict=True):
        path, row = [], leaf
        starts = np.concatenate([[0], np.cumsum(found.segments[:, 0])])
        while row >= 0:
            path.insert(0, np.arange(starts[row], starts[row + 1]))
            row = found.segments[row, 1]
        np.testing.assert_array_equal(found.ids[np.concatenate(path)], alone.ids)
        np.testing.assert_array_equal(found.trained[np.concatenate(path)], alone.trained)


def made(folder: Path | None, documents: list[Document]) -> dict[str, np.ndarray]:
    flat = Flat(folder)
    for source, one in enumerate(documents):
        flat.add(one, source=source)
    return flat.arrays()


def token_set(arrays: dict[str, np.ndarray]) -> TokenSet:
    return TokenSet(**arrays, fingerprint="f")


MIXED = [document([1, 2], [5, 6]), pair(), document([3], [4], weight=0.5), pair()]


def test_segments_and_weights_are_stored_only_where_there_are_any(tmp_path: Path) -> None:
    plain = made(None, [MIXED[0], MIXED[0]])
    assert not plain.keys() & set(OPTIONAL)
    assert token_set(plain)[0].segments is None
    arrays = made(None, MIXED)
    with drafting(tmp_path, "k") as draft:
        assert draft is not None
        publish(draft, tmp_path, "k", made(draft, MIXED), "mark")
    stored = read_arrays(tmp_path, "k")
    assert stored is not None
    assert stored[0].keys() == arrays.keys()
    for source in (arrays, stored[0]):
        tokens = token_set(source)
        assert tokens.num_labels.tolist() == [2, 5, 1, 5]
        assert tokens.label_weights.tolist() == [2, 5, 0.5, 5]
        assert tokens[0].segments is None
        for index, one in enumerate(MIXED):
            wanted, found = shifted(one), tokens[index]
            np.testing.assert_array_equal(found.input_ids, wanted.input_ids)
            np.testing.assert_array_equal(found.labels, wanted.labels)
            if wanted.segments is not None:
                np.testing.assert_array_equal(found.segments, wanted.segments)
            weights = np.ones(len(wanted)) if wanted.weights is None else wanted.weights
            np.testing.assert_array_equal(found.weights, weights)


@pytest.mark.parametrize("kept", [[0, 2], [0], [1, 3], [0, 1, 3]])
def test_the_hash_of_a_part_is_that_of_a_set_of_its_own(kept: list[int]) -> None:
    arrays = made(None, MIXED)
    part = fingerprint(arrays, np.isin(np.arange(len(MIXED)), kept))
    assert part == fingerprint(made(None, [MIXED[index] for index in kept])) != fingerprint(arrays)
    other = {**arrays, "segments": arrays["segments"] * np.array([1, 1, 2], np.int32)}
    assert fingerprint(other) != fingerprint(arrays)
    assert fingerprint({**arrays, "weights": arrays["weights"] * 2}) != fingerprint(arrays)


def test_branches_laid_apart_hold_the_same_answers_behind_their_prompt() -> None:
    arrays = made(None, MIXED)
    tokens = token_set(lay_apart(arrays))
    assert tokens.lengths.tolist() == [3, 4 + 5, 1, 4 + 5]
    assert tokens[1].input_ids.tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 6]
    assert tokens[1].labels.tolist() == [*[IGNORE] * 2, 4, 5, *[IGNORE] * 2, 4, 6, 7]
    assert tokens[1].segments is not None
    assert tokens[1].segments.tolist() == [[4, -1, CHOSEN], [5, -1, REJECTED]]
    assert tokens.num_labels.tolist() == token_set(arrays).num_labels.tolist()
    assert tokens[2].weights is not None
    assert tokens[2].weights.tolist() == [0.5]
    plain = {**dict.fromkeys(OPTIONAL), **made(None, [MIXED[0]])}
    assert lay_apart(plain) is plain


def test_turns_laid_apart_are_documents_again() -> None:
    turns = [
        document([1, 2], [7, 4, 5]),
        document([1, 2, 4, 5, 1, 3], [7, 6, 5]),
    ]
    (tree,) = of_turns(turns)
    alone = token_set(made(None, turns))
    arrays = {**dict.fromkeys(OPTIONAL), **made(None, [pair(), tree, pair(), turns[0]])}
    assert len(shifted(tree)) < alone.lengths.sum()
    assert lay_apart(arrays, beyond=len(shifted(tree))) is arrays
    for beyond in (None, len(shifted(tree)) - 1):
        tokens = token_set(lay_apart(arrays, beyond=beyond))
        assert tokens.sources.tolist() == [0, 1, 1, 2, 3]
        assert len(tokens[0]) == (7 if beyond else 9)
        for index, one in ((1, 0), (2, 1), (4, 0)):
            assert tokens[index].segments is None
            np.testing.assert_array_equal(tokens[index].input_ids, alone[one].input_ids)
            np.testing.assert_array_equal(tokens[index].labels, alone[one].labels)
        assert tokens.parts[1].tolist() == [1, 1, 3]
    assert of_turns([turns[0]]) == [turns[0]]
    strangers = [document([1], [2]), document([3], [4])]
    assert of_turns(strangers) is strangers
