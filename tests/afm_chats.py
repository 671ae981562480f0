"""Random conversations for the AFM template, the mini vocabulary, and tamm's own preprocessor."""

from __future__ import annotations

import copy
import random
from functools import cache
from pathlib import Path
from typing import Any

from graftlab.types import Conversation, Message

WORDS = [
    *("Hello", "the", " waltz", "naïve", "Größe", "1984", "don't", "音楽", "🎵🎶", "e\u0301"),
    *("\n", "\n\n", "  ", "\t", " ", "\u00a0", "\u2003", "\r\n", "▁", "<", ">", "<turn", "n>"),
    *(
        "turn_end",
        "assistant",
        "user\n",
        "system",
        "{",
        '"a": 1}',
        "\\n",
        "<|im_end|>",
        "é",
        "\u200b",
    ),
    *("А", "مرحبا", "한국어", "0x41", "<0x41>", "</b>", "x" * 40, "\U0001f469\u200d\U0001f680"),
]


def text(draw: random.Random, *, most: int = 12) -> str:
    """Words joined with or without spaces, at times only one character; never blank."""
    while True:
        parts = draw.choices(WORDS, k=draw.randint(1, most))
        found = draw.choice(["", " ", " "]).join(parts)
        if draw.random() < 0.1:
            found = draw.choice([".", "a", " b", "c\n", "\nd", "é"])
        if found.strip() and not any(mark in found for mark in ("<n>", "<turn_end>")):
            return found


def schema(draw: random.Random, depth: int = 2) -> dict[str, Any]:
    kinds = ["string", "number", "object", "array"] if depth else ["string", "number"]
    kind = draw.choice(kinds)
    made: dict[str, Any] = {"type": kind}
    if draw.random() < 0.5:
        made["description"] = text(draw, most=4)
    if kind == "object":
        names = draw.sample(["title", "année", "mood 🎵", "tracks"], k=draw.randint(1, 4))
        made["properties"] = {name: schema(draw, depth - 1) for name in names}
        made["required"] = names[: draw.randint(0, len(names))]
    if kind == "array":
        made["items"] = schema(draw, depth - 1)
    return made


def response_format(draw: random.Random) -> dict[str, Any]:
    inner: dict[str, Any] = {"schema": schema(draw)}
    if draw.random() < 0.7:
        inner["name"] = draw.choice(["Track", "Réponse", "a b"])
    if draw.random() < 0.5:
        inner["description"] = text(draw, most=4)
    return {"type": "json_schema", "json_schema": inner}


def tool(draw: random.Random) -> dict[str, Any]:
    function = {
        "name": draw.choice(["find", "play"]),
        "description": text(draw, most=5),
        "parameters": schema(draw),
    }
    return {"type": "function", "function": function}


def conversation(draw: random.Random, line: int, *, instruction: str) -> Conversation:
    """One to four exchanges, at times with a system turn, tools and response formats."""
    turns = []
    if draw.random() < 0.5:
        opened = f"{instruction} " if draw.random() < 0.3 else ""
        wanted = response_format(draw) if draw.random() < 0.1 else None
        turns.append(Message("system", opened + text(draw), wanted))
    for _ in range(draw.randint(1, 4)):
        wanted = response_format(draw) if draw.random() < 0.3 else None
        turns.append(Message("user", text(draw), wanted))
        turns.append(Message("assistant", text(draw)))
    tools = tuple(tool(draw) for _ in range(draw.randint(1, 3))) if draw.random() < 0.3 else ()
    return Conversation(tuple(turns), "random.jsonl", line, tools)


def write_mini_tokenizer(folder: Path, *, vocabulary: int = 600) -> Path:
    """`tokenizer.model` in the layout of Apple's, of our own text."""
    from demo_assets.tokenizer import train_afm_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.model"
    file.write_bytes(train_afm_tokenizer(0, vocabulary=vocabulary, sample=150))
    return file


def by_tamm(
    conversation: Conversation, file: Path, *, instruction: str, answered: bool = True
) -> tuple[list[int], list[int] | None]:
    """(ids, shifted labels) of tamm's preprocessor; without the answers' labels when asked."""
    turns = [turn.as_dict() for turn in conversation.messages]
    own = turns[0]["role"] == "system"
    if own and not turns[0]["content"].startswith(instruction):
        turns[0]["content"] = f"{instruction} {turns[0]['content']}"
    process = _preprocessor(file, prepend=not own, instruction=instruction)
    made = process(
        copy.deepcopy(turns),  # it changes what it is given
        tools=list(conversation.tools) or None,
        generate_prefix=not answered,
    )
    return list(made.input_ids), made.label_ids


@cache
def _preprocessor(file: Path, *, prepend: bool, instruction: str) -> Any:
    import sentencepiece
    from tamm.preprocessors.instruct_lm.afm import AFMChatTemplateV6Preprocessor
    from tamm.tokenizers.afm import AFMTokenizer

    stop = sentencepiece.SentencePieceProcessor(model_file=str(file)).piece_to_id("<turn_end>")
    spec = AFMTokenizer.Config(vocab_path=str(file), extra_properties={"eot_id": stop})
    return AFMChatTemplateV6Preprocessor(
        spec, prepend_system_message=prepend, system_message=instruction
    )
