"""Words of a command line, as Hydra's grammar reads them.

Hydra parses values: commas sweep, brackets make lists, quotes vanish. Free text and paths must not
be parsed, so their values are quoted here, once, and arrive as they were typed:

    prompt=Hello, "world" (a=b)      ->   prompt='Hello, "world" (a=b)'
    lr=1e-3,1e-4                     ->   lr=1e-3,1e-4                      (a sweep, with -m)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftlab.cli.compose import MASKED
from graftlab.registry import MARK, group_at, place_of

TEXT = frozenset({"prompt", "system", "target.author", "target.description"})
"""Keys whose value is text to the last character; even `null` is a word."""

PATHS = frozenset(
    {
        "adapter",
        "adapters",
        "corpus",
        "data.corpus",
        "data.default_instruction",
        "data.path",
        "data.system_prompt",
        "data.train",
        "data.valid",
        "decontaminate.against",
        "dirs",
        "cache",
        "checkpoints",
        "draft",
        "endpoint",
        "endpoint_model",
        "frame",
        "generation.schema",
        "host",
        *("judge.adapter", "judge.model", "judge.rubric", "judge.url"),
        "key_env",
        "logger.wandb.entity",
        "logger.wandb.group",
        "logger.wandb.project",
        "lora.from_run",
        "metrics.json_schema.schema",
        *("metrics.invention.corpus", "metrics.invention.plain", "metrics.regex.pattern"),
        *("metrics.persona.corpus", "metrics.persona.plain"),
        "metrics.style.ends",
        "metrics.style.pattern",
        "metrics.style.schema",
        "metrics.style.starts",
        "model.hub",
        "model.of",
        "model.path",
        "model.revision",
        "model.template",
        "name",
        "objective.anchors",
        "objective.base",
        "objective.teacher",
        "out",
        "prompts",
        "resume",
        "rewriter.adapter",
        "rewriter.cache",
        "rewriter.model",
        "rewriter.prompt",
        "rewriter.url",
        "target.draft",
        "target.draft_template",
        "target.signature",
        "verify",
        "votes",
        "write",
    }
)
"""Keys that hold paths and names; a bare `null` clears them. They never sweep."""

LISTS = frozenset(
    {
        *("corpus", "data.corpus", "data.train", "data.valid", "decontaminate.against", "dirs"),
        *("adapters", "metrics.persona.corpus", "metrics.persona.plain", "objective.anchors"),
        *("metrics.invention.corpus", "metrics.invention.plain", "votes"),
    }
)
"""Paths that may also be given as a list: data.train=[a.jsonl,b.jsonl]."""

TOKENS = frozenset({"lora.trainable_tokens", "metrics.failures.refusals", "metrics.style.banned"})
"""Lists of text: lora.trainable_tokens=[<|tool|>]."""

INNER = "data.prepare."
"""What is below is a key of `prepare`, and read as one."""

_SOURCE = re.compile(r"sources\.[^.]+\.files")
"""Paths under names of the user's own: these too may be lists."""

FOLDERS = frozenset({"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"})
"""Hydra's own folders: quoted like paths, but ${now:...} keeps its meaning."""

ALIASES = {"lora.from": "lora.from_run"}
"""Keys as people write them -> fields (`from` is a word of Python)."""

POSITIONAL = {
    **dict.fromkeys(("chat", "export", "sample"), "adapter"),
    "report": "dirs",
    **dict.fromkeys(("evaluate", "serve"), "adapters"),
}
"""Verb -> the key that words without `key=` stand for; of a key in LISTS there may be several."""

INSIDE = {"metrics": "callbacks.evaluate.metrics"}
"""Group -> where its options stand where a verb has no such group of its own."""
OWNERS = ("evaluate",)
"""Verbs that have."""

_WORD = re.compile(r"(?P<prefix>\+{0,2}|~)(?P<key>[^=+~]+)=(?P<text>.*)", re.DOTALL)
_REMOVAL = re.compile(r"~(?P<key>[^=+~]+)")
_ITEM = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,]*?))\s*(?:,|$)""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Argument:
    """One word of the command line: as typed, and as Hydra gets it."""

    typed: str
    key: str
    hydra: str


def read_arguments(arguments: Sequence[str], verb: str) -> list[Argument]:
    """Every argument that is no flag, with positionals mapped and free text quoted."""
    key = POSITIONAL.get(verb)
    plain = [argument for argument in arguments if key and _is_path(argument)]
    inside = {} if verb in OWNERS else INSIDE
    words = [_read(argument, inside) for argument in arguments if argument not in plain]
    if key in LISTS and plain:
        listed = ",".join(map(quote, plain))
        return [Argument(" ".join(plain), key, f"{key}=[{listed}]"), *words]
    words = [*(Argument(path, str(key), f"{key}={quote(path)}") for path in plain), *words]
    return [_beside_its_keys(word, words) for word in words]


def _beside_its_keys(word: Argument, words: Sequence[Argument]) -> Argument:
    """An option below `data.prepare` that is given keys as well: in one tree they share a node."""
    keys = any(other.key.startswith(f"{word.key}.") for other in words)
    if not word.key.startswith(INNER) or not keys:
        return word
    marked = word.hydra.replace(f"{word.key}=", f"{word.key}.{MARK}=", 1)
    return Argument(word.typed, word.key, marked)


def quote(text: str, *, interpolate: bool = False) -> str:
    """`text` as a quoted value of Hydra's grammar that comes out as `text` again.

    Unless `interpolate`, OmegaConf's `${...}` is escaped as well.
    """
    if text == "???":
        text = MASKED
    if not interpolate:
        text = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", text)
    # Hydra unescapes backslashes only in front of a quote, the closing one included.
    text = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{text}'"


def _read(argument: str, inside: Mapping[str, str]) -> Argument:
    if (removal := _REMOVAL.fullmatch(argument)) is not None:
        return Argument(argument, removal["key"], argument)
    match = _WORD.fullmatch(argument)
    if match is None:
        return Argument(argument, "", argument)
    key = _moved(_field(match["key"]), inside)
    return Argument(argument, key, f"{match['prefix']}{key}={_value(key, match['text'])}")


def _field(key: str) -> str:
    """The key that is meant: a group is chosen by its name, wherever its keys stand."""
    group, dot, rest = key.partition(".")
    return ALIASES.get(key) or group_at(f"{place_of(group)}.{rest}" if dot else key)


def _moved(key: str, inside: Mapping[str, str]) -> str:
    """A group that stands inside an option, as Hydra names it; and the keys of its options."""
    group, dot, rest = key.partition(".")
    if group not in inside:
        return key
    return f"{inside[group]}.{rest}" if dot else f"{group}@{inside[group]}"


def _value(key: str, text: str) -> str:
    key = key.removeprefix(INNER)
    for group, place in INSIDE.items():
        if key.startswith(f"{place}."):
            key = f"{group}.{key.removeprefix(f'{place}.')}"
    key = key.removeprefix("callbacks.evaluate.")  # prompts
    if key in TEXT:
        return quote(text)
    source = _SOURCE.fullmatch(key) is not None
    if (key in LISTS | TOKENS or source) and text.startswith("[") and text.endswith("]"):
        items = _ITEM.findall(text[1:-1])
        closed = "" if key in TOKENS else "]"  # [INST] is a token
        if any(bare.startswith("[") and "]" not in bare.removesuffix(closed) for *_, bare in items):
            return text  # a list inside the list, which is refused as such
        return "[" + ",".join(quote(item) for item in map("".join, items) if item) + "]"
    if key in PATHS or source:
        return text if text == "null" else quote(text)
    if key in FOLDERS:
        # Lightning starts its second process with these words, already quoted.
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text if quoted else quote(text, interpolate=True)
    return text


def _is_path(argument: str) -> bool:
    return "=" not in argument or ("/" in argument.split("=")[0] and Path(argument).exists())
