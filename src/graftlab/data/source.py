"""Where conversations come from: what every data choice shares, and the choices themselves.

files ──▶ rows ──▶ shape ──▶ checks ──▶ system prompt ──▶ train | valid
            └── every problem, with file and line: one DataError, or rejects.jsonl
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftlab.data.answers import answer_problems, asked_answers
from graftlab.data.calls import unlisted
from graftlab.data.check import problems_in, reserved_pattern
from graftlab.data.files import locate, read_rows
from graftlab.data.problems import RowProblem
from graftlab.data.profile import Profile
from graftlab.data.rejects import Reject, write_rejects
from graftlab.data.schemas import SchemaAugment, augment
from graftlab.data.shapes import Parsed, parse_row
from graftlab.data.split import split_hash, validation_mask
from graftlab.data.system import with_system
from graftlab.errors import (
    ConfigError,
    DataError,
    Problem,
    counted,
    require_choice,
    require_range,
)
from graftlab.registry import group
from graftlab.types import Conversation


@dataclass(slots=True)
class Dataset:
    """Checked conversations and what happened on the way."""

    train: list[Conversation]
    valid: list[Conversation]
    formats: dict[str, int]  # rows per recognised shape
    rejected: int = 0
    notes: list[str] = field(default_factory=list)  # lines for the log


@dataclass(slots=True)
class _FileSet:
    """What one of `data.train` and `data.valid` holds; `hashes` run beside `conversations`."""

    conversations: list[Conversation] = field(default_factory=list)
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    formats: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    metadata: set[str] = field(default_factory=set)
    files: int = 0
    undesirable: int = 0
    """Labelled rows that data.preference=chosen leaves out."""
    unlisted: list[str] = field(default_factory=list)
    """Places of calls that name no tool of their row, with the names."""


@group("data")
@dataclass(kw_only=True, slots=True)
class DataSpec:
    """Conversation data; `train` and `valid` take a file, a list of files or a glob."""

    train: Any = None
    """JSONL or JSON-array files with the training conversations."""
    valid: Any = None
    """Files with validation conversations; null splits them off `train` by `valid_fraction`."""
    valid_fraction: float = 0.1
    """Share of `train` held out when `valid` is null; by content hash, so stable under new rows."""
    system_prompt: str | None = None
    """System turn for rows that have none (Alpaca triples, for instance)."""
    default_instruction: str | None = None
    """Put in front of every system prompt, for models that were tuned with such a line."""
    on_invalid: str = "error"
    """error: refuse the data, listing every bad row; skip: go on, keep them in rejects.jsonl."""
    over_limit: str = "drop"
    """Conversations over packing.max_length: drop (counted) or error. Never cut silently."""
    train_turns: str = "all"
    """Train all assistant turns of a conversation, or only the last."""
    train_on: str = "both"
    """Of an answer that shows its reasoning, train the answer, the reasoning or both."""
    preference: str | None = None
    """null: compared and judged answers are for a preference objective; chosen: train on the chosen
    and the desirable ones as on any others."""
    ignore_keys: list[str] = field(default_factory=list)
    """Keys of rows and turns to pass over, as if they were not there; any other must be known."""
    limit: int | None = None
    """Use only the first N conversations of each file set: for quick probes."""
    schema_augment: SchemaAugment = field(default_factory=SchemaAugment)
    profile: Profile = field(default_factory=Profile)

    def __post_init__(self) -> None:
        require_choice("data.on_invalid", self.on_invalid, ("error", "skip"))
        require_choice("data.over_limit", self.over_limit, ("drop", "error"))
        require_choice("data.train_turns", self.train_turns, ("all", "last"))
        require_choice("data.train_on", self.train_on, ("answers", "reasoning", "both"))
        if self.preference is not None:
            require_choice("data.preference", self.preference, ("chosen",))
        require_range("data.valid_fraction", self.valid_fraction, least=0, most=0.9)
        require_range("data.limit", self.limit, least=1)

    @property
    def has_files(self) -> bool:
        """Whether there is data to read, or only a profile of what it will be like."""
        return True

    def check(self) -> None:
        """Raise ConfigError unless every configured file exists; reads none of them."""
        self.files()

    def load(
        self, *, reserved: frozenset[str] = frozenset(), rejects: Path | None = None
    ) -> Dataset:
        """Read, check and split. `reserved` are strings no content may hold (a tokenizer's).

        With `on_invalid=skip` bad rows are written to `rejects` as {source, line, reason, row}.
        Raises ConfigError for missing files and DataError listing every bad row.
        """
        train_files, valid_files = self.files()
        pattern = reserved_pattern(reserved)
        self._check_prompts(pattern)
        train = self._read(train_files, pattern)
        valid = self._read(valid_files, pattern)
        bad = [*train.rejects, *valid.rejects]
        notes = _summary("data.train", train)
        if valid_files:
            notes += _summary("data.valid", valid)
        if metadata := sorted(train.metadata | valid.metadata):
            notes.append(f"keys that are metadata and not read: {', '.join(metadata)}")
        if bad:
            notes.append(self._settle(bad, len(train.hashes) + len(valid.hashes), rejects))
        if not train.conversations:
            raise DataError("data.train holds no conversation that can be trained.", _problems(bad))
        if valid_files:
            train_set, valid_set = train.conversations, valid.conversations
            seen = set(valid.hashes)  # not of both sides: a hundred bytes a conversation
            if shared := len({value for value in train.hashes if value in seen}):
                rows = {"answers": "conversations"}.get(train_set[0].kind, "prompts")
                notes.append(f"data.valid: {shared} {rows} are in data.train as well")
        else:
            train_set, valid_set = self._split(train)
            notes.append(
                f"data.valid_fraction={self.valid_fraction}: {len(valid_set)} of "
                f"{len(train.conversations)} conversations held out by content hash"
            )
        if self.schema_augment.copies:
            train_set, note = augment(train_set, self.schema_augment)
            notes.append(note)
        formats = dict(train.formats + valid.formats)
        return Dataset(train_set, valid_set, formats, len(bad), notes)

    def files(self) -> tuple[list[Path], list[Path]]:
        """The files of `train` and of `valid`. Raises ConfigError for missing ones."""
        valid = locate("data.valid", self.valid) if self.valid else []
        return locate("data.train", self.train), valid

    def _check_prompts(self, reserved: re.Pattern[str] | None) -> None:
        for key in ("system_prompt", "default_instruction"):
            found = reserved.search(getattr(self, key) or "") if reserved else None
            if found:
                raise ConfigError(f"data.{key} contains the reserved token {found.group()}.")

    def _read(self, files: list[Path], reserved: re.Pattern[str] | None) -> _FileSet:
        found = _FileSet(files=len(files))
        for path in files:
            for item in self._rows(path, reserved):
                if isinstance(item, Reject):
                    found.rejects.append(item)
                    continue
                parsed, conversation, value = item
                found.formats[parsed.shape] += 1
                found.metadata |= parsed.metadata
                if names := unlisted(parsed.messages + parsed.rejected, parsed.tools):
                    found.unlisted.append(f"{conversation.where}: {', '.join(names)}")
                if conversation.desirable is False and self.preference == "chosen":
                    found.undesirable += 1
                    continue
                found.conversations.append(conversation)
                found.hashes.append(value)
                if self.limit is not None and len(found.conversations) == self.limit:
                    return found
        return found

    def _rows(
        self, path: Path, reserved: re.Pattern[str] | None
    ) -> Iterator[Reject | tuple[Parsed, Conversation, int]]:
        source = str(path)
        for row in read_rows(path):
            parsed: Parsed | str = row.problem or self._checked(row.value, reserved)
            if isinstance(parsed, str):
                yield Reject(source, row.line, parsed, row.value, row.index, row.ends)
                continue
            read = Conversation(
                parsed.messages,
                source,
                row.line,
                parsed.tools,
                row.index,
                parsed.rejected,
                parsed.desirable,
            )
            # Hashed as read, so that another system prompt does not deal the split anew.
            yield parsed, self._prompted(read), split_hash(read)

    def _prompted(self, conversation: Conversation) -> Conversation:
        """The conversation with the configured system prompt; the chosen one, where that is all."""
        sides = [
            with_system(turns, system=self.system_prompt, instruction=self.default_instruction)
            for turns in (conversation.messages, conversation.rejected)
            if turns
        ]
        messages, *rejected = sides
        if self.preference == "chosen":
            judged = False if conversation.desirable is False else None
            return replace(conversation, messages=messages, rejected=(), desirable=judged)
        return replace(conversation, messages=messages, rejected=rejected[0] if rejected else ())

    def _checked(self, row: Any, reserved: re.Pattern[str] | None) -> Parsed | str:
        """The row, or all that is wrong with it."""
        try:
            chosen_only = self.preference == "chosen"
            parsed = parse_row(row, ignore=self.ignore_keys, chosen_only=chosen_only)
        except RowProblem as problem:
            return str(problem)
        messages = parsed.messages
        problems = problems_in(messages, reserved=reserved, tools=parsed.tools, first=parsed.first)
        if parsed.rejected and not chosen_only:
            other = problems_in(parsed.rejected, reserved=reserved, first=parsed.first)
            problems += [f"rejected: {one}" for one in other if one not in problems]
        if self.schema_augment.copies and not problems:
            problems = answer_problems(messages)
            if any(asked_answers(messages)) and (parsed.rejected or parsed.desirable is not None):
                problems.append("data.schema_augment varies no answers that are compared or judged")
        return "; ".join(problems) or parsed

    def _split(self, train: _FileSet) -> tuple[list[Conversation], list[Conversation]]:
        held = validation_mask(train.hashes, self.valid_fraction)
        pairs = list(zip(train.conversations, held, strict=True))
        return [c for c, out in pairs if not out], [c for c, out in pairs if out]

    def _settle(self, bad: list[Reject], good: int, rejects: Path | None) -> str:
        """Refuse the bad rows, or put them aside; returns the line for the log.

        A file that is cut short is refused either way: nobody could say how many rows are missing.
        """
        cut = [row for row in bad if row.ends]
        if self.on_invalid == "error" and len(cut) < len(bad):
            raise DataError(
                f"{len(bad)} of {len(bad) + good} rows cannot be trained "
                "(data.on_invalid=skip leaves them out and lists them in rejects.jsonl):",
                _problems(bad),
            )
        if cut:
            files = counted(len(cut), "file")
            raise DataError(f"{files} cannot be read to the end:", _problems(cut))
        if rejects is None:
            return f"{counted(len(bad), 'row')} left out (data.on_invalid=skip)"
        write_rejects(rejects, bad)
        return f"{counted(len(bad), 'row')} left out (data.on_invalid=skip), listed in {rejects}"


def _problems(bad: list[Reject]) -> list[Problem]:
    return [Problem(row.where, row.reason) for row in bad]


def _summary(key: str, found: _FileSet) -> list[str]:
    """What the log says of a file set."""
    shapes = ", ".join(f"{name} {count}" for name, count in found.formats.most_common())
    rows = counted(len(found.conversations), "conversation")
    lines = [f"{key}: {rows} from {counted(found.files, 'file')} ({shapes or 'none'})"]
    if found.undesirable:
        lines.append(f"{key}: {found.undesirable} undesirable left out (data.preference=chosen)")
    if found.unlisted:
        rows = "1 row calls" if len(found.unlisted) == 1 else f"{len(found.unlisted)} rows call"
        lines.append(
            f"! {key}: {rows} a tool that its `tools` do not list, such as {found.unlisted[0]}"
        )
    return lines
