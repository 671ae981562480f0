"""The shortest way to end a JSON reply that is only begun: what keeps guided replies in budget.

A matcher says which bytes may follow; a best-first search over its rollbacks finds a short run of
bytes after which the reply is whole. What it returns always is one; that it is the shortest is
likely, not certain, as the search looks at a few ways through every place alone:

    {"name": "Ann", "tags": ["re|                   d"]}            shortest end, 4 bytes
    {"name": "Ann", |                               "tags":[]}      required; optional ones are not
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable
from functools import cache, reduce
from typing import Any, NamedTuple

from graftlab.generation.schema import required_names, words
from graftlab.text.json_schema import require_llguidance

END = 256
"""The byte tokenizer's id of the end."""
WAYS = 3
"""Ways that are followed through one place of the reply."""
MOST_STEPS = 20_000
"""Bytes looked at before the search gives up."""
FEW = 16
"""So many continuations of a string are all looked at; of more, one of each kind is."""
OPENING = 24
"""Price, in bytes, of an array or object: where anything is allowed, they nest without end."""
OPTIONAL = 64
"""Price, in bytes, of a property that no object of the schema requires."""


def _set(members: bytes) -> int:
    """Bytes as the bits of one number, as masks are."""
    return sum(1 << byte for byte in set(members))


_BLANKS, _CLOSERS, _COMMA, _QUOTE = _set(b" \n\r\t"), _set(b"}]"), _set(b","), _set(b'"')
_KINDS = (b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b" -_.:/@")
_ESCAPES = b'"nu'


class GrammarState(NamedTuple):
    """Where in a JSON text one is: the open containers, and what of the string or key is written.

    Each container is `{` or `[`, the number of its commas, and the key that was written last.
    """

    open: tuple[tuple[int, int, bytes], ...] = ()
    text: bytes | None = None
    """Inside a string: its bytes so far, undecoded."""
    escaped: bool = False
    at_value: bool = True
    """A value comes next, or is being written; else a key, comma or closer."""
    run: int = 0
    """Bytes of the number or word that is being written."""

    def after(self, byte: int) -> GrammarState:
        """The place behind one more byte, which the grammar allows."""
        if self.text is not None:
            return self._in_string(byte)
        if 1 << byte & _BLANKS:
            return self
        match chr(byte):
            case '"':
                return self._replace(text=b"", run=0)
            case "{" | "[":
                inner = (byte, 0, b"")
                return self._replace(open=(*self.open, inner), at_value=byte != ord("{"), run=0)
            case "}" | "]":
                return self._replace(open=self.open[:-1], at_value=True, run=1)
            case ":":
                return self._replace(at_value=True, run=0)
            case "," if self.open:
                kind, commas, _ = self.open[-1]
                inner = (kind, commas + 1, b"")
                in_list = kind == ord("[")
                return self._replace(open=(*self.open[:-1], inner), at_value=in_list, run=0)
        return self._replace(run=self.run + 1)

    def behind(self, text: bytes) -> GrammarState:
        """The place behind more bytes."""
        return reduce(GrammarState.after, text, self)

    def _in_string(self, byte: int) -> GrammarState:
        text = (self.text or b"") + bytes([byte])
        if self.escaped or byte == ord("\\"):
            return self._replace(text=text, escaped=not self.escaped)
        if byte != ord('"'):
            return self._replace(text=text)
        if self.at_value:
            return self._replace(text=None, run=1)
        kind, commas, _ = self.open[-1]
        inner = (kind, commas, text[:-1])
        return self._replace(text=None, open=(*self.open[:-1], inner), run=0)

    @property
    def is_key(self) -> bool:
        """Inside a string that is the name of a property."""
        return self.text is not None and not self.at_value

    @property
    def least(self) -> int:
        """Bytes that an end from here takes at the very least."""
        return len(self.open) + (self.text is not None)


class Closer:
    """Finds ends of replies of one schema."""

    def __init__(self, schema: Any, grammar: str, *, writable: Iterable[int]) -> None:
        """`writable` are the bytes that the vocabulary can write at all."""
        self._matcher = require_llguidance().LLMatcher(_byte_tokenizer(), grammar, log_level=0)
        self._words = {json.dumps(word, ensure_ascii=False)[1:].encode() for word in words(schema)}
        self._begun = {word[:size] for word in self._words for size in range(len(word))}
        required = [
            json.dumps(name, ensure_ascii=False)[1:].encode() for name in required_names(schema)
        ]
        self._required = {name[:size] for name in required for size in range(len(name) + 1)}
        self._writable = _set(bytes(writable))

    def start(self) -> Any:
        """A matcher over bytes, at the beginning of a reply."""
        return self._matcher.deep_copy()

    def shortest(self, matcher: Any, place: GrammarState, *, most: int) -> bytes | None:
        """A short end of the reply from `place`, at most `most` bytes long; None if none is found.

        `matcher` is left as it is.
        """
        # Priority, a running number to tell equals apart, bytes so far, price, place, matcher.
        queue = [(place.least, 0, b"", 0, place, matcher.deep_copy())]
        seen: Counter[Any] = Counter()
        steps = 0
        while queue and steps < MOST_STEPS:
            _, _, so_far, price, here, state = heapq.heappop(queue)
            if state.is_accepting():
                return so_far
            allowed = self.allowed(state)
            told = self._place(here, allowed)
            seen[told] += 1
            if seen[told] > WAYS or len(so_far) >= most:
                continue
            for byte in self._choices(allowed, here):
                steps += 1
                after = here.after(byte)
                ahead = state.deep_copy()
                if not ahead.consume_token(byte):
                    continue
                cost = price + 1 + self._surcharge(here, byte)
                item = (cost + after.least, steps, so_far + bytes([byte]), cost, after, ahead)
                heapq.heappush(queue, item)
        return None

    def ends(self, matcher: Any, text: bytes) -> bool:
        """Whether the reply is whole behind `text`."""
        ids = list(text)
        if matcher.validate_tokens(ids) < len(ids):  # unlike consuming in vain, this costs nothing
            return False
        ahead = matcher.deep_copy()
        return bool(ahead.consume_tokens(ids) and ahead.is_accepting())

    def allowed(self, matcher: Any) -> int:
        """Which bytes may follow, as the bits of one number."""
        return int.from_bytes(matcher.compute_bitmask()[:32], "little") & self._writable

    def _place(self, here: GrammarState, allowed: int) -> tuple[Any, ...]:
        """What tells two places apart: of strings and keys that are no word of the schema, only how
        long they are, and that they are none."""
        path = tuple((kind, commas, key in self._begun and key) for kind, commas, key in here.open)
        text = here.text
        said = text if text is None or text in self._begun else len(text)
        return path, here.at_value, here.run, said, allowed

    def _surcharge(self, here: GrammarState, byte: int) -> int:
        """The price of what the reply could likely do without, besides that of the byte."""
        if here.text is None:
            return OPENING if byte in b"{[" else 0
        if not here.is_key or here.text not in self._required:
            return 0
        return 0 if here.text + bytes([byte]) in self._required else OPTIONAL

    def _choices(self, allowed: int, here: GrammarState) -> Iterable[int]:
        """The bytes worth following from here: none that only makes the reply longer."""
        if here.text is None:
            ends = allowed & _CLOSERS or (allowed & _COMMA if here.run else 0)
            return _members(ends or allowed & ~_BLANKS or allowed)
        named = here.is_key and here.text in self._begun
        if allowed & _QUOTE and not named and not here.escaped:
            return b'"'
        options = _members(allowed)
        return options if len(options) <= FEW else self._kinds(options, here)

    def _kinds(self, options: list[int], here: GrammarState) -> list[int]:
        """One byte of each kind, and those that go on a word of the schema."""
        so_far = here.text or b""
        wanted = {w[len(so_far)] for w in self._words if w.startswith(so_far) and w != so_far}
        chosen = wanted & set(options)
        if ord('"') in options and not here.escaped:
            chosen.add(ord('"'))
        for kind in (_ESCAPES,) if here.escaped else _KINDS:
            chosen.update([byte for byte in kind if byte in options][:1])
        high = [byte for byte in options if byte >= 0x80]
        return sorted(chosen) or options[:1] + high[:1]


def _members(bits: int) -> list[int]:
    """The bytes whose bit is set."""
    return [byte for byte, bit in enumerate(bin(bits)[:1:-1]) if bit == "1"]


@cache
def _byte_tokenizer() -> Any:
    """A vocabulary of all bytes and an end: masks over it cost a microsecond."""
    llguidance = require_llguidance()

    class Bytes:
        eos_token_id, bos_token_id = END, None
        tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
        special_token_ids = (END,)

        def __call__(self, text: str) -> list[int]:
            return list(text.encode())

    wrapper = llguidance.TokenizerWrapper(Bytes())
    return llguidance.LLTokenizer(wrapper, n_vocab=END + 1, eos_token=END, slices=[])
