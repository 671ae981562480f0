"""Keys of rows and turns: which are known metadata, and why others are refused, by name.

Nothing in a row is passed over in silence. A key is read (data/shapes.py), blank (null, "", [] or
{}: it says nothing), a repetition of a turn, metadata that the log names once, or refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from graftlab.errors import did_you_mean

METADATA = frozenset(
    {
        *("id", "idx", "index", "uuid", "row_id", "sample_id", "example_id", "message_id"),
        *("prompt_id", "parent_id", "user_id"),
        *("conversation_id", "conversation_hash", "message_tree_id", "turn_identifier", "hash"),
        *("url", "license"),
        *("source", "sources", "data_source", "source_dataset", "original_dataset", "dataset"),
        *("dataset_name", "origin"),
        *("category", "subcategory", "task", "task_category", "task_type", "topic", "domain"),
        *("subject", "title", "tags", "labels"),
        *("language", "lang", "langdetect", "country", "state", "split", "version", "metadata"),
        *("meta", "custom_instruction"),
        *("model", "model_name", "generator", "gen_input_configs", "skip_prompt_formatting"),
        "parallel_tool_calls",
        *("timestamp", "date", "created", "created_at", "created_date", "create_time"),
        "updated_at",
        *("turn", "num_turns", "num_tokens", "token_count", "tokens", "length", "views"),
        "avatarUrl",
        *("score", "quality", "quality_score", "reward", "difficulty", "rating"),
        *("author", "dump", "file_path", "language_score", "added"),
        *("toxic", "redacted", "hashed_ip", "header", "openai_moderation", "detoxify_moderation"),
        "detoxify",
    }
)
"""Where a row comes from and what was measured of it, as published data sets name it: those of
OpenAI, LLaMA-Factory, ShareGPT, Alpaca, OpenAssistant, Tulu, UltraChat, OpenHermes, xLAM, WildChat,
Magpie, and those that `graftlab prepare` writes."""

REPEATED = frozenset(
    {
        *("prompt", "question", "query", "instruction", "input"),
        *("response", "answer", "output", "completion", "text"),
    }
)
"""Keys that may say again what stands in a turn, as UltraChat's `prompt` does."""

SCALES = ("weight", "loss_weight", "loss_scale")
SWITCHES = ("loss", "train", "training", "trainable", "train_on_turn")
WEIGHTS = frozenset({*SCALES, *SWITCHES})
"""Keys that say how strongly, or whether, a turn is trained."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant's turn that hold what it thought before its answer."""

_READ = (
    *("messages", "conversations", "system", "tools", "response_format", "role", "content"),
    *("prompt", "chosen", "rejected", "completion", "label", "tool_calls"),
)

_MEDIA = "images, video and sound are not trained: leave such rows out"
_REASONING = "reasoning is read in an assistant's turn alone: write it there"
_CALLS = "tool calls are read in an assistant's turn alone: write them there"
_LINKS = "it is read in a turn of the role `tool` alone"
_HIDDEN = "no chat template is given it, so the model would not see it"

_REASONS = {
    **dict.fromkeys(
        ["image", "images", "image_url", "video", "videos", "audio", "audios", "input_audio"],
        _MEDIA,
    ),
    **dict.fromkeys(REASONING, _REASONING),
    **dict.fromkeys(
        ["thoughts", "thought", "cot"], "reasoning is read from `reasoning_content`: write it there"
    ),
    **dict.fromkeys(["tool_calls", "function_call"], _CALLS),
    "tool_call_id": _LINKS,
    **dict.fromkeys(["chosen", "rejected"], "a row compares answers, a turn does not"),
    **dict.fromkeys(["label", "kto_tag"], "it must be true or false, and belongs to a whole row"),
    **dict.fromkeys(["name", "documents", "chat_template_kwargs"], _HIDDEN),
    **dict.fromkeys(["train_detail", "training_detail", "mask", "masked"], "it is not read"),
    "refusal": "a refusal is trained from `content` only: write it there, or leave such rows out",
    "history": "it is not read: write earlier turns out as messages",
    "functions": "it is the older form of `tools`: write them there",
}


class Unread:
    """What the keys that nobody reads come to: metadata that was seen, and what is refused."""

    __slots__ = ("metadata", "refused", "unknown")

    def __init__(self) -> None:
        self.metadata: set[str] = set()
        self.refused: list[str] = []
        self.unknown: list[str] = []

    def row(self, row: dict[str, Any], read: Collection[str], turns: Sequence[str] | None) -> None:
        """Judge a row's keys but those `read`; `turns` are its texts, None for broken ones."""
        for key in row:
            if key in read or is_blank(value := row[key]):
                continue
            if key in METADATA or (key in REPEATED and _repeats(key, value, turns)):
                self.metadata.add(key)
            elif key in REPEATED:
                self.refused.append(
                    f"`{key}` says what no turn of the row does: correct or remove it, or pass "
                    f"over it with data.ignore_keys=[{key}] (sources.NAME.ignore_keys for prepare)"
                )
            elif key in WEIGHTS:
                if value != 1:
                    self.refused.append(
                        f"`{key}` is {brief(value)}: turns have weights, rows do not"
                    )
            elif key in _REASONS:
                self.refused.append(f"`{key}`: {_REASONS[key]}")
            else:
                self.unknown.append(key)

    def turn(self, name: str, turn: dict[str, Any], read: Collection[str]) -> None:
        """Judge the keys of a turn but those `read`; `name` is what it is called in messages."""
        for key in turn:
            if key in read or is_blank(value := turn[key]):
                continue
            if key in METADATA:
                self.metadata.add(key)
            elif key in WEIGHTS:
                self._weight(name, key, value)
            elif key in _REASONS:
                self.refused.append(f"{name} has `{key}`: {_REASONS[key]}")
            elif key not in self.unknown:
                self.unknown.append(key)

    def _weight(self, name: str, key: str, value: Any) -> None:
        """A weight of 0 says what is done anyway; any other is refused."""
        if value != 0:
            said = brief(value)
            self.refused.append(f"{name} has `{key}`: {said}: only the assistant's are trained")

    def problems(self) -> list[str]:
        """What is refused, in words, with the way on."""
        refused = list(dict.fromkeys(self.refused))  # the two sides of a pair share turns
        if not self.unknown:
            return refused
        names = [brief(key) for key in self.unknown]
        keys = "key " if len(names) == 1 else "keys "
        hint = did_you_mean(names[0], set(_READ) - {names[0]})
        return [
            *refused,
            f"unknown {keys}{', '.join(f'`{name}`' for name in names)}, which nothing reads: "
            f"remove, or pass over with data.ignore_keys=[{','.join(names)}] "
            f"(sources.NAME.ignore_keys for prepare).{hint}",
        ]


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: null, an empty text, array or object. 0 and false do."""
    return value is None or (not value and isinstance(value, str | list | dict))


def without(row: Any, keys: Iterable[str]) -> Any:
    """The row without these keys, in itself and in its turns."""
    if isinstance(row, list):
        return [_less(turn, keys) for turn in row]
    row = _less(row, keys)
    if isinstance(row, dict):
        for name in ("messages", "conversations", "prompt", "chosen", "rejected", "completion"):
            if isinstance(row.get(name), list):
                row[name] = [_less(turn, keys) for turn in row[name]]
            elif isinstance(row.get(name), dict):
                row[name] = _less(row[name], keys)
    return row


def _less(value: Any, keys: Iterable[str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if key not in keys}


def _repeats(key: str, value: Any, turns: Sequence[str] | None) -> bool:
    """Whether a text says what the turns say; of broken turns nobody knows, so it may."""
    if turns is None:
        return True
    if not isinstance(value, str):
        return False
    if key == "text":  # Alpaca's: question and answer within its own prompt
        return bool(turns) and all(turn.strip() in value for turn in turns)
    return value.strip() in {turn.strip() for turn in turns}


def brief(value: Any) -> str:
    """A value as messages show it."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
