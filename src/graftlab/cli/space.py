"""Swept words as dimensions: Hydra's sweep syntax, typed on the line or written in a space.

    lr=1e-4,1e-3  lora=attn,dora  lora=glob(*)    a list of values or options
    lora.rank=range(8,33,8)                       a list of numbers
    lr=interval(1e-4,1e-3)                        any number between, ends included
    lora.rank=tag(step:8,interval(8,128))         only every eighth

An interval whose ends are a factor of ten and more apart is drawn by ratio (log), another evenly;
tag(log,...) and tag(linear,...) say otherwise. It holds whole numbers where the key does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from graftlab.cli.overrides import Argument, read_arguments
from graftlab.cli.schema import Schema
from graftlab.cli.validate import check_arguments
from graftlab.errors import ConfigError
from graftlab.sweeps.space import Dimension, Point, grid, in_order, without_idle

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override

LOG_RATIO = 10
"""From which ratio of its ends on an interval is drawn by ratio."""


def dimension_of(override: str, schema: Schema) -> Dimension | None:
    """The dimension of a swept override, as Hydra gets it; None for one that holds for every job.

    Raises ConfigError for what cannot be searched.
    """
    from hydra.core.override_parser.types import Glob, IntervalSweep, Sweep

    parsed = _parse(override)
    key, swept = parsed.get_key_element().lstrip("+"), parsed._value
    written: Any = swept
    if isinstance(written, IntervalSweep):
        return _interval(key, written, schema)
    if isinstance(written, Sweep) and written.tags:
        raise ConfigError(f"`{override}`: a tag says how an interval is drawn; a list has no use.")
    if isinstance(written, Glob):
        options = schema.groups.get(parsed.key_or_group)
        if options is None:
            raise ConfigError(f"`{override}`: glob chooses among the options of a group.")
        found = written.filter(options)
        if not found:
            raise ConfigError(f"`{override}` matches none of {', '.join(options)}.")
        return Dimension(key=key, choices=tuple(found))
    if parsed.is_discrete_sweep():
        return Dimension(key=key, choices=tuple(_texts(parsed)))
    return None


def swept_texts(dimension: Dimension) -> Sequence[str]:
    """The values that a mistake can lie in: all of a list, both ends of an interval."""
    if dimension.choices is not None:
        return dimension.choices
    return [dimension.text(end) for end in dimension.ends]


def corners(dimensions: Sequence[Dimension]) -> Iterator[Point]:
    """A point for every listed value and every end of an interval, the rest at their first.

    A conditional value comes with what it depends on, and only in points where it applies.
    """
    order, by_key = in_order(dimensions), {d.key: d for d in dimensions}
    firsts = {d.key: swept_texts(d)[0] for d in dimensions}
    seen: list[Point] = []
    for dimension in dimensions:
        for text in swept_texts(dimension):
            whole = firsts | _needed(dimension, by_key) | {dimension.key: text}
            point = without_idle(whole, order)
            if point not in seen:
                seen.append(point)
                yield point


def _needed(dimension: Dimension, by_key: Mapping[str, Dimension]) -> Point:
    """What other keys must be, so that the dimension is swept."""
    needed: Point = {}
    while dimension.when is not None:
        key, text = dimension.when
        needed[key] = text
        dimension = by_key[key]
    return needed


def read_space(
    words: Sequence[Argument], *, space: Mapping[str, Any], when: Mapping[str, str], schema: Schema
) -> list[Dimension]:
    """Everything that is swept: what the space holds, then what was typed.

    A typed word, swept or not, wins over the space's entry of its key. `when` holds for both; a
    condition on a key that was typed with one value is settled here. Raises ConfigError naming
    every entry that cannot be.
    """
    typed = {word.key: word for word in words}
    swept = [d for word in words if (d := dimension_of(word.hydra, schema)) is not None]
    problems: list[str] = []
    spaced: list[Dimension] = []
    for written, values in space.items():
        try:
            dimension = _entry(written, values, schema)
            if dimension.key not in typed:
                spaced.append(dimension)
        except ConfigError as error:
            problems.append(f"sweep.space: {error}")
    found = {d.key: d for d in [*spaced, *swept]}
    for written, condition in when.items():
        try:
            _settle(written, condition, found, typed, schema)
        except ConfigError as error:
            problems.append(f"sweep.when: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return list(found.values())


def space_arguments(spec: Any, words: Sequence[Argument], schema: Schema) -> list[Argument]:
    """The grid of a spec's space as words, but for keys that were typed.

    Raises ConfigError for an interval, which has no end of points.
    """
    sweep, typed = spec.sweep, {word.key for word in words}
    found = read_space(words, space=sweep.space, when={}, schema=schema)
    grid(found)
    texts = {d.key: ",".join(d.choices or ()) for d in found if d.key not in typed}
    return [Argument(f"{key}={text}", key, f"{key}={text}") for key, text in texts.items()]


def _parse(override: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override)


def _texts(parsed: Override) -> Iterator[str]:
    """The values of a list, one by one; shuffled alike every time, so that a sweep can go on."""
    from hydra.core.override_parser.types import RangeSweep

    swept: Any = parsed._value
    ordered = replace(parsed, _value=replace(swept, shuffle=False))
    if isinstance(swept, RangeSweep):  # 0.1 + 0.2 is 0.3, to people
        values = list(ordered.sweep_iterator())
        texts = [repr(float(f"{v:.12g}")) if isinstance(v, float) else str(v) for v in values]
    else:
        texts = list(ordered.sweep_string_iterator())
    if swept.shuffle:
        random.Random(parsed.key_or_group).shuffle(texts)
    yield from texts


def _interval(key: str, swept: IntervalSweep, schema: Schema) -> Dimension:
    low, high = swept.start, swept.end
    assert low is not None
    assert high is not None
    kinds = _kinds(key, schema)
    if not kinds & {int, float, Any}:
        raise ConfigError(f"{key} takes no numbers, and so no interval: give a list of values.")
    whole = kinds & {int, float, Any} == {int} or (isinstance(low, int) and isinstance(high, int))
    log, step = low > 0 and high / low >= LOG_RATIO, None
    for tag in sorted(swept.tags):
        name, _, value = tag.partition(":")
        if name == "step" and _is_number(value):
            log, step = False, float(value)
        elif tag in ("log", "linear"):
            log = tag == "log"
        else:
            raise ConfigError(
                f"{key}: tag({tag}, ...) means nothing here; log, linear and step:NUMBER do."
            )
    return Dimension(key=key, low=low, high=high, step=step, log=log, integer=whole)


def _kinds(key: str, schema: Schema) -> set[Any]:
    """The types a key's values may have; none for a group."""
    if key in schema.groups:
        return set()
    hint = schema.find(key)
    return set(get_args(hint)) or {hint}


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _entry(key: str, values: Any, schema: Schema) -> Dimension:
    """One entry of a space: text as it would be typed, or a YAML list of values."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        words = [checked_word(key, item, schema) for item in values]
        if not words:
            raise ConfigError(f"{key}: there is nothing to choose from.")
        return Dimension(key=words[0].key, choices=tuple(_text(word) for word in words))
    word = checked_word(key, values, schema)
    return dimension_of(word.hydra, schema) or Dimension(key=word.key, choices=(_text(word),))


def checked_word(key: str, value: Any, schema: Schema) -> Argument:
    """A key and its value as a checked word of the command line."""
    words = read_arguments([f"{key}={_typed(value)}"], schema.verb)
    return check_arguments(words, schema, multirun=True)[0]


def _typed(value: Any) -> str:
    """What YAML holds, as it would be typed."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_typed(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _text(word: Argument) -> str:
    """The one value of a word, as Hydra writes it."""
    return _parse(word.hydra).get_value_element_as_str()


def _settle(
    written: str,
    condition: str,
    found: dict[str, Dimension],
    typed: Mapping[str, Argument],
    schema: Schema,
) -> None:
    """Put a condition on its dimension, or decide it where the other key was typed."""
    key = checked_word(written, "null", schema).key if written not in schema.groups else written
    if key not in found:
        if key in typed:
            return
        raise ConfigError(f"{key} is not swept, so there is nothing to restrict.")
    other, equals, value = condition.partition("=")
    if not equals:
        raise ConfigError(f"{key}: {condition} is not of the form other.key=value.")
    wanted = checked_word(other, value, schema)
    text = _text(wanted)
    if wanted.key in found or wanted.key not in typed:
        found[key] = replace(found[key], when=(wanted.key, text))
    elif _text(typed[wanted.key]) != text:
        del found[key]
