"""Token sets: shifted labels, limits, fingerprints, and a cache that many may share."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import graftlab.text.encode as module
from graftlab.caches import default_cache
from graftlab.errors import DataError
from graftlab.text import memmap_writer as spill
from graftlab.text import turns
from graftlab.text.cache import ARRAYS, cache_key, drafting, publish, read_arrays
from graftlab.text.encode import TokenSet, encode
from graftlab.text.show import as_text, shown_tokens
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import IGNORE, PLAIN, Conversation, Message

Maker = Callable[[str], Tokenizer]


def chats(count: int = 12) -> list[Conversation]:
    return [
        Conversation(
            (
                Message("user", f"Question {i} " + "and more " * i),
                Message("assistant", f"Answer {i}."),
                Message("user", "Again?"),
                Message("assistant", f"Yes, {i}!"),
            ),
            "chats.jsonl",
            i + 1,
        )
        for i in range(count)
    ]


def assert_same(one: TokenSet, other: TokenSet) -> None:
    for name in ("input_ids", "labels", "offsets", "parts", "sources", "segments"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.fingerprint == other.fingerprint


def test_labels_are_the_next_tokens_of_the_rendering(chat_tokenizer: Maker, tmp_path: Path) -> None:
    tokenizer, conversations = chat_tokenizer("chatml"), chats()
    tokens = encode(conversations, tokenizer, max_length=4096, cache=tmp_path)
    assert len(tokens) == len(conversations)
    assert tokens.sources.tolist() == list(range(len(conversations)))
    for index, conversation in enumerate(conversations):
        document = tokens[index]
        rendered = tokenizer.render(conversation.messages, generation_prompt=False)
        assert document.input_ids.tolist() == rendered[: len(document)]
        trained = document.labels != IGNORE
        nexts = np.array(rendered[1 : len(document) + 1])
        np.testing.assert_array_equal(document.labels[trained], nexts[trained])
        # Nothing follows the last label, and it is the stop token.
        assert trained[-1]
        assert document.labels[-1] == tokenizer.stop_ids[0]
        assert tokens.num_labels[index] == trained.sum()
        assert tokens.lengths[index] == len(document)
        text = tokenizer.decode(document.labels[trained].tolist(), skip_special=False)
        assert text == "".join(m.content + tokenizer.stop for m in conversation.messages[1::2])
    assert tokens.input_ids.dtype == tokens.labels.dtype == np.int32


def test_the_limit_drops_with_a_count_or_refuses(chat_tokenizer: Maker, tmp_path: Path) -> None:
    tokenizer, conversations = chat_tokenizer("chatml"), chats()
    whole = encode(conversations, tokenizer, max_length=4096, cache=tmp_path)
    limit = int(whole.lengths[6])
    kept = encode(conversations, tokenizer, max_length=limit, cache=tmp_path)
    assert len(kept) + len(kept.dropped) == len(whole)
    assert kept.dropped
    assert kept.lengths.max() == limit
    longest = kept.dropped[-1]
    assert (longest.where, longest.tokens) == ("chats.jsonl:12", whole.lengths[-1])
    for index, source in enumerate(kept.sources):
        np.testing.assert_array_equal(kept[index].labels, whole[int(source)].labels)
    assert kept.fingerprint != whole.fingerprint
    with pytest.raises(DataError, match=r"chats\.jsonl:12: \d+ tokens"):
        encode(conversations, tokenizer, max_length=limit, over_limit="error", cache=tmp_path)


def test_no_conversations_are_no_documents(chat_tokenizer: Maker, tmp_path: Path) -> None:
    for _ in range(2):
        tokens = encode([], chat_tokenizer("chatml"), max_length=64, cache=tmp_path)
        assert len(tokens) == len(tokens.lengths) == len(tokens.num_labels) == 0


def test_every_problem_is_reported_at_once(chat_tokenizer: Maker, tmp_path: Path) -> None:
    system = Message("system", "Be brief.")
    conversations = [
        Conversation((system, *chat.messages), chat.source, chat.line) if i % 2 else chat
        for i, chat in enumerate(chats(6))
    ]
    with pytest.raises(DataError, match="System role") as caught:
        encode(conversations, chat_tokenizer("gemma"), max_length=4096, cache=tmp_path)
    assert [line.split(": ")[0] for line in caught.value.problems] == [
        f"chats.jsonl:{line}" for line in (2, 4, 6)
    ]


def test_the_second_run_reads_the_cache(
    chat_tokenizer: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = chat_tokenizer("qwen3")
    first = encode(chats(), tokenizer, max_length=4096, cache=tmp_path)
    assert len(first) == len(chats())
    assert first.branched  # its turns are rendered anew
    with monkeypatch.context() as patch:
        patch.delattr(module, "_encode_all")
        again = encode(chats(), tokenizer, max_length=4096, cache=tmp_path)
    assert isinstance(again.input_ids, np.memmap)
    assert_same(first, again)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_key_knows_data_tokenizer_and_turns_but_not_the_place() -> None:
    base = chats(3)
    key = cache_key(base, "tokenizer", "all")
    moved = [Conversation(c.messages, "elsewhere.jsonl", 7) for c in base]
    assert cache_key(moved, "tokenizer", "all") == key
    tools = [Conversation(c.messages, tools=({"name": "f"},)) for c in base]
    wanted = [
        Conversation((Message("user", "Hi", {"type": name}), *c.messages[1:]))
        for name, c in zip(("a", "b", "b"), base, strict=True)
    ]
    joined = [*base[:1], Conversation(base[1].messages + base[2].messages)]
    others = [
        cache_key(base[:2], "tokenizer", "all"),
        cache_key(base[::-1], "tokenizer", "all"),
        cache_key(base, "other", "all"),
        cache_key(base, "tokenizer", "last"),
        cache_key(tools, "tokenizer", "all"),
        cache_key(joined, "tokenizer", "all"),
        cache_key(wanted, "tokenizer", "all"),
        cache_key(wanted[:1] * 2 + wanted[2:], "tokenizer", "all"),
    ]
    assert len({key, *others}) == 9


def test_a_tokenizer_of_another_folder_brings_its_code_into_the_key(
    chat_tokenizer: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = chat_tokenizer("chatml")
    monkeypatch.syspath_prepend(tmp_path)
    keys = {ours.rendering}
    for number in (1, 2):
        code = "from graftlab.text.hf import HFTokenizer\nclass Theirs(HFTokenizer):\n    n = "
        (tmp_path / f"theirs{number}.py").write_text(f"{code}{number}\n")
        cls = importlib.import_module(f"theirs{number}").Theirs
        theirs = cls.__new__(cls)
        theirs.__dict__.update(ours.__dict__)
        keys.add(theirs.rendering)
    assert len(keys) == 3


def test_a_damaged_cache_is_made_anew(chat_tokenizer: Maker, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer("chatml")
    first = encode(chats(), tokenizer, max_length=4096, cache=tmp_path)
    (file,) = tmp_path.glob("tokens-*/input_ids.npy")
    wanted = np.array(first.input_ids)
    del first
    for damage in (b"", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        again = encode(chats(), tokenizer, max_length=4096, cache=tmp_path)
        np.testing.assert_array_equal(again.input_ids, wanted)
        assert file.stat().st_size > 40
        del again


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    chat_tokenizer: Maker, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    tokens = encode(chats(), chat_tokenizer("chatml"), max_length=4096, cache=blocked)
    assert_same(tokens, encode(chats(), chat_tokenizer("chatml"), max_length=4096, cache=tmp_path))
    assert f"the token cache {blocked} cannot be used" in str(tokens.note)
    assert "GRAFTLAB_CACHE" in str(tokens.note)


@contextmanager
def small_disk(room: int) -> Iterator[None]:
    """Meanwhile no file of this process grows beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 200, 1000, 1500])
def test_a_disk_that_fills_up_loses_nothing(
    room: int,
    chat_tokenizer: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = chat_tokenizer("chatml")
    whole = encode(chats(), tokenizer, max_length=4096, cache=tmp_path / "large")
    assert whole.input_ids.nbytes > 1500
    monkeypatch.setattr(spill, "_HELD", 50)
    with small_disk(room):
        tokens = encode(chats(), tokenizer, max_length=4096, cache=tmp_path / "small")
    assert not isinstance(tokens.input_ids, np.memmap)
    assert_same(tokens, whole)
    assert "File too large" in str(tokens.note)
    assert list((tmp_path / "small").iterdir()) == []
    limit = int(np.median(whole.lengths))
    assert (
        encode(chats(), tokenizer, max_length=limit, cache=tmp_path / "small").fingerprint
        == encode(chats(), tokenizer, max_length=limit, cache=tmp_path / "large").fingerprint
    )


def test_tokens_grow_on_disk_not_in_memory(tmp_path: Path) -> None:
    """Three thousand documents of a thousand tokens: 24 MB that are never held at once."""
    ids = np.arange(1001, dtype=np.int32)
    trained = np.arange(1001) > 500
    tracemalloc.start()
    flat = spill.Flat(tmp_path)
    for number in range(3000):
        flat.add(turns.Document(ids + number, trained, (0, 501, 500)), source=number)
    arrays = flat.arrays()
    mark = spill.fingerprint(arrays)
    tokens = TokenSet(**arrays, fingerprint=mark)
    counts = tokens.num_labels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["input_ids"].nbytes + arrays["labels"].nbytes == 24_000_000
    assert peak < 14e6
    assert counts.tolist() == [500] * 3000
    np.testing.assert_array_equal(tokens[7].input_ids, ids[:1000] + 7)


def test_a_draft_of_another_host_is_cleared_a_day_later(
    chat_tokenizer: Maker, tmp_path: Path
) -> None:
    old, young = (tmp_path / f".tokens-a.elsewhere-1-{n}.partial" for n in ("00000a", "00000b"))
    for draft in (old, young):
        (draft / "tokens-a").mkdir(parents=True)
        (draft / "tokens-a" / "labels.npy").touch()
    long_ago = time.time() - 100_000
    for path in (*old.rglob("*"), old, young, young / "tokens-a"):
        os.utime(path, (long_ago, long_ago))
    encode(chats(1), chat_tokenizer("chatml"), max_length=4096, cache=tmp_path)
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize("count", [12, 40])
def test_documents_within_a_limit_are_those_of_a_set_of_their_own(
    count: int, chat_tokenizer: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is copied, and lengths, counts and hash are what they would be alone."""
    monkeypatch.setattr(module, "_COUNTED", 5)
    tokenizer, everything = chat_tokenizer("chatml"), chats(count)
    order = [n * 7 % count for n in range(count)]  # long and short ones in turn
    mixed = [everything[n] for n in order]
    whole = encode(mixed, tokenizer, max_length=4096, cache=tmp_path)
    limit = int(np.median(whole.lengths))
    kept = encode(mixed, tokenizer, max_length=limit, cache=tmp_path)
    inside = [mixed[source] for source in kept.sources]
    alone = encode(inside, tokenizer, max_length=limit, cache=tmp_path)
    assert 0 < len(kept) < len(whole)
    assert np.diff(kept.sources).max() > 1
    assert kept.fingerprint == alone.fingerprint != whole.fingerprint
    for name in ("lengths", "num_labels", "parts"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(alone, name))
    for index in range(len(alone)):
        np.testing.assert_array_equal(kept[index].labels, alone[index].labels)
        np.testing.assert_array_equal(kept[index].input_ids, alone[index].input_ids)
        assert kept.num_labels[index] == (alone[index].labels != IGNORE).sum()
    assert kept.input_ids.nbytes == whole.input_ids.nbytes


WRITER = """
import sys, numpy as np
from pathlib import Path
from graftlab.text.cache import ARRAYS, drafting, publish, read_arrays
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for key in range(40):
    arrays = {name: np.full(5000, key, np.int32) for name in ARRAYS}
    with drafting(folder, str(key)) as draft:
        publish(draft, folder, str(key), arrays, str(key))
    found, mark = read_arrays(folder, str(key))
    assert mark == str(key) and all((a == key).all() for a in found.values())
"""


def test_two_writers_at_once_leave_one_whole_set(tmp_path: Path) -> None:
    source = Path(module.__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == sorted(f"tokens-{key}" for key in range(40))


def test_a_damaged_set_is_replaced_and_never_removed_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads meanwhile finds a set or none, not one that loses file after file."""

    def write(value: int) -> None:
        with drafting(tmp_path, "k") as draft:
            assert draft is not None
            publish(draft, tmp_path, "k", {n: np.full(3, value) for n in ARRAYS}, str(value))

    write(1)
    home, remove = tmp_path / "tokens-k", shutil.rmtree
    (home / "labels.npy").write_bytes(b"damaged")
    removed: list[Path] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: removed.append(path) or remove(path))
    write(2)
    assert removed
    assert home not in removed
    found = read_arrays(tmp_path, "k")
    assert found is not None
    assert found[1] == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens-k"]


def test_a_whole_set_stays_when_another_is_written(tmp_path: Path) -> None:
    for value in (1, 2):
        with drafting(tmp_path, "k") as draft:
            assert draft is not None
            publish(draft, tmp_path, "k", {n: np.full(3, value) for n in ARRAYS}, str(value))
    stored = read_arrays(tmp_path, "k")
    assert stored is not None
    assert stored[1] == "1"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_cache_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("GRAFTLAB_CACHE")
    assert default_cache() == Path.home() / ".cache" / "graftlab"


def test_trained_tokens_are_told_apart_without_colour(
    chat_tokenizer: Maker, tmp_path: Path
) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokens = encode(chats(1), tokenizer, max_length=4096, cache=tmp_path)
    shown = shown_tokens(tokens[0], tokenizer)
    assert [piece for piece, trained in shown if trained].count("<|im_end|>") == 2
    plain = as_text(shown, colour=False).plain
    assert plain.count("⟦") == plain.count("⟧") == 2
    assert plain.split("⟦")[1].split("⟧")[0].replace("|", "") == "Answer 0.<im_end>"
    coloured = as_text(shown, colour=True)
    assert coloured.plain.replace("↵\n", "\n") == tokenizer.render_text(
        chats(1)[0].messages, generation_prompt=False
    ).removesuffix("\n")
    assert any("green" in str(span.style) for span in coloured.spans)


def test_turns_that_a_template_renders_anew_share_their_beginning(
    chat_tokenizer: Maker, tmp_path: Path
) -> None:
    """One tree of the same tokens and labels; laid apart where asked for, or where too long."""
    thinking = "<think>\nhm {}\n</think>\n\nAnswer {}"
    exchanges = [
        Message(role, text)
        for i in range(4)
        for role, text in (
            ("user", f"Question {i}, " + "at length, " * 9),
            ("assistant", thinking.format(i, i)),
        )
    ]
    talks = [Conversation(tuple(exchanges), "f", 1), Conversation(tuple(exchanges[:2]), "f", 2)]
    read = partial(encode, talks, chat_tokenizer("qwen3"), cache=tmp_path)
    tree, apart = read(max_length=4096), read(max_length=4096, share_prompts=False)
    assert (tree.sources.tolist(), apart.sources.tolist()) == ([0, 1], [0, 0, 0, 0, 1])
    assert tree.fingerprint != apart.fingerprint
    assert tree.num_labels.tolist() == [apart.num_labels[:4].sum(), apart.num_labels[4]]
    assert tree.lengths[0] < 0.6 * apart.lengths[:4].sum()
    assert tree[1].segments is None
    segments = tree[0].segments
    assert segments is not None
    assert set(segments[:, 2].tolist()) == {PLAIN}
    assert apart.segments is None
    reader = turns.TurnReader(chat_tokenizer("qwen3"))
    (first, *_), *_ = reader.documents(reader.drafts(talks[0]))
    assert apart[0].input_ids.tolist() == first.ids[: len(apart[0])].tolist()
    longest = int(apart.lengths.max())
    assert longest < tree.lengths[0]
    short = read(max_length=longest)
    assert short.dropped == []
    assert short.fingerprint == apart.fingerprint
    assert read(max_length=4096, row_length=longest).fingerprint == apart.fingerprint
