"""The tokenizer that a GGUF file describes, as the files of a Hugging Face tokenizer.

    tokenizer.ggml.model   gpt2     byte-level BPE: tokens, merges, and how text is split before
                           llama    SentencePiece's BPE: tokens with scores, bytes as fallback
    tokenizer.ggml.token_type       1 normal  2 unknown  3 control  4 user-defined  5 unused  6 byte

Control tokens and user-defined ones are matched whole before anything is split, as llama.cpp does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.models.gguf.file import GGUFFile
from graftlab.models.gguf.pretokenizers import splitting_of
from graftlab.text.limit import LONGEST

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE = "tokenizer.chat_template"
MODELS = ("gpt2", "llama")
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
"""transformers' name of a special token -> the key under tokenizer.ggml that gives its id."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
LONGEST_TOKEN = 1024
"""Characters; those of known models have under 300."""
SPACE = "\u2581"
"""What stands for a space in SentencePiece's tokens."""


def check_vocabulary(file: GGUFFile) -> None:
    """Raise ModelError for a tokenizer that cannot be made of what the file says."""
    model = _told(file, "model")
    if model not in MODELS:
        raise ModelError(
            f"{file.path} has a tokenizer of the kind {model}; {' and '.join(MODELS)} can be read."
        )
    tokens = _listed(file, "tokens", str)
    if max(map(len, tokens)) > LONGEST_TOKEN:
        raise ModelError(f"{file.path} holds a token of over {LONGEST_TOKEN:,} characters.")
    lists: dict[str, type] = {"token_type": int} | ({"scores": float} if model == "llama" else {})
    for name, kind in lists.items():
        if len(_listed(file, name, kind)) != len(tokens):
            raise ModelError(f"{file.path}: tokenizer.ggml.{name} is not of as many as its tokens.")
    if model == "gpt2":
        splitting_of(_told(file, "pre"), file.path)
        _listed(file, "merges", str)
    elif any(map(math.isnan, _told(file, "scores"))):
        raise ModelError(f"{file.path}: of tokenizer.ggml.scores some are not numbers (NaN).")
    for key in SPECIAL.values():
        index = _told(file, key)
        if index is not None and not (type(index) is int and 0 <= index < len(tokens)):
            raise ModelError(f"{file.path}: tokenizer.ggml.{key} is {index!r}, which is no token.")
    template = file.metadata.get(TEMPLATE, "")
    if not isinstance(template, str) or len(template) > LONGEST:
        raise ModelError(
            f"{file.path}: {TEMPLATE} is no text of up to {LONGEST:,} characters. Take another "
            "file of the model."
        )


def _listed(file: GGUFFile, name: str, kind: type) -> list[Any]:
    """A list under tokenizer.ggml of values that are of one kind. Raises ModelError."""
    found = _told(file, name)
    if not isinstance(found, list) or not found:
        raise ModelError(f"{file.path} holds no {name} (tokenizer.ggml.{name}).")
    if type(found[0]) is not kind:
        raise ModelError(f"{file.path}: tokenizer.ggml.{name} is a list of another kind.")
    return found


def write_tokenizer(file: GGUFFile, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, with the chat template where there is one."""
    check_vocabulary(file)
    try:
        made = _byte_level(file) if _told(file, "model") == "gpt2" else _sentencepiece(file)
        made.add_tokens(_added(file))
    except Exception as error:  # what tokenizers raises has no class of its own
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{file.path}: tokenizer.ggml.tokens and merges make no tokenizer: {reason}. Take "
            "another file of the model."
        ) from error
    tokens = _told(file, "tokens")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.metadata.get(f"{file.architecture}.context_length"),
    }
    for name, key in SPECIAL.items():
        if (index := _told(file, key)) is not None:
            config[name] = tokens[index]
    if (template := file.metadata.get(TEMPLATE)) is not None:
        config["chat_template"] = template
    made.save(str(folder / "tokenizer.json"))
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _told(file: GGUFFile, key: str) -> Any:
    return file.metadata.get(f"tokenizer.ggml.{key}")


def _byte_level(file: GGUFFile) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    splitting = splitting_of(_told(file, "pre"), file.path)
    vocabulary = {token: index for index, token in enumerate(_told(file, "tokens"))}
    merges = [tuple(merge.split(" ", 1)) for merge in _told(file, "merges")]
    made = Tokenizer(
        models.BPE(vocabulary, merges, ignore_merges=splitting.whole_words, fuse_unk=False)
    )
    splits = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in splitting.patterns
    ]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(file: GGUFFile) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens: list[str] = _told(file, "tokens")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = _told(file, "unknown_token_id")
    made = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(vocabulary, _told(file, "scores"), _told(file, "token_type")),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = _told(file, "add_space_prefix") is not False
    spaces: list[Any] = [normalizers.Replace(" ", SPACE)]
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), *spaces] if prefixed else spaces
    )
    stripped: list[Any] = [decoders.Strip(" ", 1, 0)] if prefixed else []
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return made


def _merges(
    vocabulary: dict[str, int], scores: Sequence[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """The merges that a BPE does which takes the pair first whose whole has the best score."""
    found = []
    for token, index in vocabulary.items():
        if types[index] in (UNKNOWN, CONTROL):
            continue
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        inside = [(a, b) for a, b in pairs if a in vocabulary and b in vocabulary]
        inside.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(-scores[index], index, *pair) for pair in inside]
    found.sort(key=lambda merge: merge[0])
    return [(left, right) for *_, left, right in found]


def _added(file: GGUFFile) -> list[Any]:
    """The tokens that are matched whole."""
    from tokenizers import AddedToken

    # llama.cpp's own rule: these models were trained with the spaces behind a marker left out.
    strips = "phi-3" in str(file.metadata.get("general.name")).lower()
    bare = {"<unk>", "<s>", "<|endoftext|>"}
    return [
        AddedToken(
            token,
            special=kind in (UNKNOWN, CONTROL),
            normalized=False,
            rstrip=strips and token not in bare,
        )
        for token, kind in zip(_told(file, "tokens"), _told(file, "token_type"), strict=True)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
