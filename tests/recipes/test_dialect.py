"""Dialect is read in standard English; other prose is left alone; too much of it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftlab.recipes import dialect
from graftlab.recipes.dialect import is_dialect, standard_english, unread
from graftlab.recipes.teachers.base import VARIATIONS, Miss
from graftlab.recipes.teachers.rules import DIALECT, MOST_UNREAD, RulesTeacher

HEAVY = (
    "Ah dinna ken whit ye mean, laddie; tha munna gang wi' yon mon, he's nobbut a gowk, an' hoo's "
    "allus clemmed. Nay, ah'll noan gang."
)


@pytest.mark.parametrize(
    ("spoken", "read"),
    [
        (
            "They wa'n't no call fer it, an' I'd heerd suthin' a-goin' daown thar.",
            "There was no call for it, and I'd heard something going down there.",
        ),
        (
            "They's suthin' ben in the rud, an' they was a awful noise.",
            "There has been something in the road, and there was an awful noise.",
        ),
        (
            "An' all the little trees is pushed back, an' the dogs was barkin'.",
            "And all the little trees are pushed back, and the dogs were barking.",
        ),
        ("An' Luther he says they leads daown thar.", "And Luther says they lead down there."),
        (
            "I dun't keer ef he don't git nothin' fer it.",
            "I don't care if he doesn't get anything for it.",
        ),
        (
            "Haff on 'em's gone, an' he must a raised suthin' wuss.",
            "Half of them are gone, and he must have raised something worse.",
        ),
        ("He seed it fust, an' he knowed haow big it was, bigger'n a haouse.",
         "He saw it first, and he knew how big it was, bigger than a house."),
        ("'Wal,' he said, 'yew hed orter see them big tracks daown thar.'",
         "'Well,' he said, 'you had ought to see those big tracks down there.'"),
    ],
)  # fmt: skip
def test_speech_is_read(spoken: str, read: str) -> None:
    assert standard_english(spoken) == read


@pytest.mark.parametrize("name", ["essay.txt", "letter.txt"])
def test_other_prose_stays_as_it_is(name: str) -> None:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8").strip()
    assert standard_english(text) == text
    assert unread(text) < MOST_UNREAD / 2


@pytest.mark.parametrize(
    "text",
    [
        "The far hull lay by the sot's kin; he saw the ben.",
        "'I see,' he began, 'that they begin' is what she wrote.",
        "Within' is a slip of the pen, and so is again'.",
    ],
)
def test_words_in_their_own_right_are_no_dialect(text: str) -> None:
    assert not is_dialect(text)
    assert standard_english(text) == text


def test_old_elisions_are_written_out() -> None:
    assert standard_english("It was allow'd and deny'd; he'd gone, nobody'd seen.") == (
        "It was allowed and denied; he'd gone, nobody'd seen."
    )


def test_what_no_table_reads_is_refused_with_its_share() -> None:
    assert unread(HEAVY) > MOST_UNREAD
    for name in VARIATIONS:
        (found,) = RulesTeacher().rewrite([HEAVY], name)
        assert isinstance(found, Miss)
        assert found.reason == DIALECT
        assert "%" in found.detail


def test_one_such_paragraph_is_enough() -> None:
    plain = "The road was long. The men walked home in the evening."
    assert unread(f"{plain}\n\n{plain}") == 0
    assert unread(f"{plain}\n\n{HEAVY}") == unread(HEAVY)


def test_no_spelling_has_two_readings() -> None:
    path = Path(dialect.__file__).with_name("dialect.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if ": " in line and not line.startswith("#")]
    spellings = [word for row in rows for word in row.partition(": ")[2].lower().split()]
    assert len(spellings) > 150
    assert len(spellings) == len(set(spellings))
