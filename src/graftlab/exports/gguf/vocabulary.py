"""A tokenizer in a GGUF file's words: what `models/gguf/vocabulary.py` reads.

    tokenizer.json    byte-level BPE              tokenizer.ggml.model=gpt2, pre=NAME of its split
                      BPE of SentencePiece        tokenizer.ggml.model=llama, a score for each piece
                      any other                   refused, and so is a split without a name

SentencePiece merges the pair whose whole has the best score first: the number of a piece's first
merge, less than zero, puts pieces into the order of the merges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from graftlab.errors import ModelError
from graftlab.models.gguf.pretokenizers import DIGIT, GPT2, SPLITTINGS
from graftlab.models.gguf.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    SPECIAL,
    TEMPLATE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from graftlab.models.weights import read_json

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

CONFIG = "tokenizer_config.json"
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Keys for tokens at which llama.cpp ends a reply, whatever they are called."""
Rules = Mapping[str, Any]


def vocabulary(tokenizer: Tokenizer, *, rows: int, name: str) -> dict[str, Any]:
    """What a file called `name` says of the tokenizer of an embedding of so many rows.

    Raises ModelError for one that llama.cpp would not follow.
    """
    with TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save(folder)
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(
                "the tokenizer has no tokenizer.json, of which the vocabulary of a GGUF file is "
                "made: convert it in transformers, with AutoTokenizer and save_pretrained."
            )
        rules, config = read_json(folder / "tokenizer.json"), read_json(folder / CONFIG)
        bare = _encoded(folder / "tokenizer.json", "a")
    told = _of_rules(rules, rows, starts_with_marker=_starts_with_marker(tokenizer))
    tokens = told["tokenizer.ggml.tokens"]
    places = {token: index for index, token in enumerate(tokens)}
    ids = {key: places.get(_text(config.get(name))) for name, key in SPECIAL.items()}
    told |= {f"tokenizer.ggml.{key}": index for key, index in ids.items() if index is not None}
    told["tokenizer.ggml.add_bos_token"] = bare[:1] == [ids["bos_token_id"]]
    told["tokenizer.ggml.add_eos_token"] = False
    told["general.name"] = _named(name, rules)
    return told | endings(tokenizer, ids["eos_token_id"]) | {TEMPLATE: tokenizer.template}


def endings(tokenizer: Tokenizer, eos: int | None) -> dict[str, int]:
    """Every token at which a reply ends: `eos`, which templates may write too, and the others."""
    others = [index for index in tokenizer.stop_ids if index != eos]
    ends = [tokenizer.stop_ids[0] if eos is None else eos, *others]
    found = zip(ENDS, dict.fromkeys(ends), strict=False)
    return {f"tokenizer.ggml.{key}": index for key, index in found}


def _of_rules(rules: Rules, rows: int, *, starts_with_marker: bool) -> dict[str, Any]:
    model = rules["model"]
    if model.get("type") != "BPE" or model.get("dropout"):
        raise ModelError(
            f"the tokenizer is of the kind {model.get('type')}, and BPE alone is written as GGUF: "
            "target=merged writes a folder, which keeps it as it is."
        )
    merges = [_pair(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            **_tokens(rules, rows),
            "tokenizer.ggml.scores": _scores(rules, merges, rows),
            "tokenizer.ggml.add_space_prefix": _prefixed(rules, starts_with_marker),
        }
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splitting_name(rules),
        **_tokens(rules, rows),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.add_space_prefix": False,
    }


def _tokens(rules: Rules, rows: int) -> dict[str, Any]:
    """Tokens and their types, one for every row; rows without a token are called [PAD]."""
    tokens = [f"[PAD{row}]" for row in range(rows)]
    types = [UNUSED] * rows
    model, pieces = rules["model"], bool(rules["model"].get("byte_fallback"))
    for token, index in model["vocab"].items():
        if index < rows:
            tokens[index] = token
            byte = pieces and len(token) == 6 and token.startswith("<0x")
            types[index] = BYTE if byte else NORMAL
    for token in rules["added_tokens"]:
        if token["id"] < rows:
            tokens[token["id"]] = token["content"]
            types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if pieces and (unknown := model["vocab"].get(model.get("unk_token"))) is not None:
        types[unknown] = UNKNOWN
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}


def splitting_name(rules: Rules) -> str:
    """llama.cpp's name of how a byte-level BPE splits text. Raises ModelError for none."""
    normalizer, found = rules.get("normalizer"), list(_patterns(rules.get("pre_tokenizer")))
    if normalizer is None or normalizer["type"] == "NFC":  # of which llama.cpp knows nothing
        whole = bool(rules["model"].get("ignore_merges"))
        for name, splitting in SPLITTINGS.items():
            if list(splitting.patterns) == found and splitting.whole_words == whole:
                return name
    kind = normalizer["type"] if normalizer else "none"
    raise ModelError(
        f"the tokenizer splits text by {found} (normalizer: {kind}), for which llama.cpp has no "
        f"name that is known here ({', '.join(SPLITTINGS)}), and another way would give other "
        "tokens. target=merged writes a folder, which keeps it as it is."
    )


def _patterns(step: Rules | None) -> Iterator[str]:
    """The patterns that a pre-tokenizer splits by, in order; what is unknown is called by name."""
    if step is None:
        return
    kind = step["type"]
    if kind == "Sequence":
        for part in step["pretokenizers"]:
            yield from _patterns(part)
    elif kind == "Split" and "Regex" in step["pattern"] and _isolates(step):
        yield step["pattern"]["Regex"]
    elif kind == "Digits" and step.get("individual_digits"):
        yield DIGIT
    elif kind == "ByteLevel" and not step.get("add_prefix_space"):
        yield from [GPT2] if step.get("use_regex", True) else []
    else:
        yield f"({kind})"


def _isolates(step: Rules) -> bool:
    """Whether pieces are what the pattern matches, and what lies between."""
    return (step["behavior"], step.get("invert", False)) in (("Isolated", False), ("Removed", True))


def _scores(rules: Rules, merges: Sequence[tuple[str, str]], rows: int) -> list[float]:
    places = rules["model"]["vocab"]
    first: dict[str, int] = {}
    for number, (left, right) in enumerate(merges, 1):
        first.setdefault(left + right, number)
    scores = [0.0] * rows
    for token, index in places.items():
        if index < rows:
            scores[index] = -float(first.get(token, len(merges) + 1))
    return scores


def _prefixed(rules: Rules, starts_with_marker: bool) -> bool:
    """Whether a space is put before text. Raises ModelError for rules that are not known."""
    both = [rules[kind] for kind in ("normalizer", "pre_tokenizer") if rules.get(kind)]
    inner = [one.get("normalizers") or one.get("pretokenizers") or [one] for one in both]
    steps: list[Rules] = [step for several in inner for step in several]
    prefixed = False
    for step in steps:
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == SPACE:
            prefixed = True
        elif kind == "Metaspace":
            scheme = step.get("prepend_scheme", "always")
            # llama.cpp puts it behind every marker too: where a chat starts with one, none is asked
            prefixed = scheme == "always" or (scheme == "first" and not starts_with_marker)
        elif not (
            (kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE)
            or (kind == "Split" and step["pattern"] == {"String": " "})
        ):
            raise ModelError(
                f"the tokenizer prepares text by {kind}, which llama.cpp does not for pieces of "
                "SentencePiece. target=merged writes a folder, which keeps it as it is."
            )
    return prefixed


def _named(name: str, rules: Rules) -> str:
    """A name by which llama.cpp leaves out spaces behind markers where the tokenizer does.

    Its rule for Phi-3 goes by nothing else, and no other model is to be called so.
    """
    strips = any(token["special"] and token["rstrip"] for token in rules["added_tokens"])
    called = name.lower()
    if strips:
        return name if "phi-3" in called else f"Phi-3 {name}"
    return "model" if "phi-3" in called or "phi3" in called else name


def _starts_with_marker(tokenizer: Tokenizer) -> bool:
    from graftlab.types import Message

    text = tokenizer.render_text([Message("user", "Hi")], generation_prompt=True)
    return text.startswith(tuple(tokenizer.markers))


def _encoded(file: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer as FileTokenizer

    ids: list[int] = FileTokenizer.from_file(str(file)).encode(text).ids
    return ids


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _text(token: Any) -> str:
    return str(token.get("content")) if isinstance(token, dict) else str(token)
