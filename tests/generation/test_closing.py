"""The shortest end of a reply that is only begun."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graftlab.generation.closing import Closer, GrammarState
from graftlab.generation.schema import read_schema
from graftlab.text.json_schema import grammar, mismatch
from schemas import SCHEMAS, TEXT, closed

TRACK = closed(
    title=TEXT,
    tags={"type": "array", "items": {"enum": ["red", "a long word"]}, "minItems": 1},
    by={"anyOf": [closed(name={**TEXT, "minLength": 2}), {"type": "null"}]},
)


def end(schema: dict[str, Any], begun: str, *, most: int = 500) -> bytes | None:
    schema = read_schema(schema)
    closer = Closer(schema, grammar(schema), writable=range(256))
    matcher, place = closer.start(), GrammarState().behind(begun.encode())
    assert matcher.consume_tokens(list(begun.encode())), f"{begun} is not a beginning"
    found = closer.shortest(matcher, place, most=most)
    if found is not None:
        assert mismatch(begun + found.decode(), schema) is None
        assert closer.ends(matcher, found)
        assert not found or not closer.ends(matcher, found[:-1])
        # `shortest` has left the matcher where it was.
        assert closer.shortest(matcher, place, most=most) == found
    return found


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        ("", '{"title":"","tags":["red"],"by":null}'),
        ('{"title": "Ann\\', 'n","tags":["red"],"by":null}'),
        ('{"title":"x","tags":["a l', 'ong word"],"by":null}'),
        ('{"title":"x","tags":["red"', '],"by":null}'),
        ('{"title":"x","tags":["red"],"by":{"name":"a', ' "}}'),
        ('{"title":"x","tags":["red"],"by":n', "ull}"),
        ('{"title":"x","tags":["red"],"by":null}', ""),
    ],
)
def test_ends_of_a_track(begun: str, expected: str) -> None:
    found = end(TRACK, begun)
    assert found is not None
    assert len(found) <= len(expected)
    assert found.decode()[-3:] == expected[-3:]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_has_a_whole_reply(name: str) -> None:
    assert end(SCHEMAS[name], "")


def test_optional_properties_are_left_out_and_recursion_ends() -> None:
    assert end(SCHEMAS["optional"], "") == b'{"p5":"","p11":""}'
    assert end(SCHEMAS["optional"], '{"p5":"","p7') == b'":"","p11":""}'
    deep = '{"value":1,"children":[' * 5
    assert end(SCHEMAS["recursive"], deep) == b"]}" * 5


def test_loops_of_a_pattern_are_left() -> None:
    loop = closed(a={"type": "string", "pattern": "^a*b(cd)+$"})
    assert end(loop, '{"a":"aaaa') == b'bcd"}'
    assert end(loop, '{"a":"abcdc') == b'd"}'


def test_half_a_character_is_made_whole() -> None:
    schema = read_schema(closed(a=TEXT))
    closer = Closer(schema, grammar(schema), writable=range(256))
    matcher = closer.start()
    begun = b'{"a":"' + "漢".encode()[:1]
    assert matcher.consume_tokens(list(begun))
    found = closer.shortest(matcher, GrammarState().behind(begun), most=50)
    assert found is not None
    assert len(json.loads((begun + found).decode())["a"]) == 1


def test_no_end_is_longer_than_allowed() -> None:
    whole = end(TRACK, "")
    assert whole is not None
    assert end(TRACK, "", most=len(whole)) == whole
    assert end(TRACK, "", most=len(whole) - 1) is None
