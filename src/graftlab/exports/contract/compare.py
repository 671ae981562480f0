"""The prompt contract: whether a runtime's prompts are those that the rows train.

For every answer of a row, the ids before it in training are compared with those that a runtime
makes of the same turns. Training keeps the ids of a prompt whole (`text/turns.py`), so equal ones
mean that the model is asked what it was taught to answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graftlab.errors import ModelError, counted
from graftlab.exports.contract.llama_server import LlamaCppServer, served
from graftlab.exports.contract.renderers import Renderer, Tools, renderers
from graftlab.models.weights import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from graftlab.text.tokenizer import Tokenizer
    from graftlab.types import Conversation, Message

RUNTIMES = ("ollama", "llama.cpp", "mlx", "vllm")
MOST_ROWS = 1000
"""Rows that are compared; of more, so many are taken evenly."""
_SHOWN = 24

CURES = {
    "BOS": "begin the template with {{ bos_token }} (model.template=FILE), or train on a tokenizer "
    "that adds none",
    "tools": "vLLM and llama-server --jinja write tools; give each a description, which the latter "
    "puts in where there is none",
    "white space": "take the white space from the ends of the rows' texts",
    "thoughts": "llama-server --jinja and vLLM show thinking as the template does",
    "stops": "serve what target=merged or target=vllm writes, which says it",
    "the date": "train with the date that it will be asked with, or put it into a system turn",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """A prompt that is not the one that is trained."""

    where: str
    kind: str
    what: str
    cure: str


@dataclass(slots=True)
class Contract:
    """What was found of one runtime."""

    runtime: str
    by: str
    prompts: int = 0
    breaches: list[Breach] = field(default_factory=list)
    unserved: str = ""
    """Why it cannot be asked at all."""

    def lines(self) -> Iterator[str]:
        """For people: one line, and one more for each kind of breach with its first row."""
        if self.unserved:
            yield f"{self.runtime}: {self.unserved}"
            return
        equal = self.prompts - sum(breach.kind != "stops" for breach in self.breaches)
        yield f"{self.runtime}: {equal} of {counted(self.prompts, 'prompt')} as trained ({self.by})"
        for kind in dict.fromkeys(breach.kind for breach in self.breaches):
            same = [breach for breach in self.breaches if breach.kind == kind]
            more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
            first = same[0]
            yield f"! {first.where}{more}: {kind}: {first.what}. What helps: {first.cure}."


def compare(
    names: Sequence[str],
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    base: Path | None = None,
) -> list[Contract]:
    """Every prompt of the rows in every runtime. Rows that cannot be trained are left out.

    `base` is the model's folder, whose own word on where answers end is what vLLM and mlx-lm go by.
    """
    found = []
    with ExitStack() as stack:
        for runtime in renderers(names, tokenizer):
            if not isinstance(runtime, Renderer):
                found.append(Contract(runtime[0], "", unserved=runtime[1]))
                continue
            if runtime.name == LlamaCppServer.name:
                try:
                    runtime = stack.enter_context(served(tokenizer)) or runtime
                except ModelError as error:
                    found.append(Contract(runtime.name, "", unserved=str(error)))
                    continue
            contract = check(runtime, conversations, tokenizer)
            if runtime.reads_endings and base is not None:
                contract.breaches += _unended(tokenizer, base)
            found.append(contract)
    return found


def check(
    runtime: Renderer, conversations: Sequence[Conversation], tokenizer: Tokenizer
) -> Contract:
    """Every prompt of the rows in one runtime."""
    contract, step = Contract(runtime.name, runtime.by), -(-len(conversations) // MOST_ROWS) or 1
    for row in conversations[::step]:
        for place, message in enumerate(row.messages):
            if message.role != "assistant":
                continue
            prompt = row.messages[:place]
            try:
                wanted = tokenizer.render(prompt, tools=row.tools, generation_prompt=True)
            except ModelError:
                continue  # told where it is encoded
            breach = _breach(runtime, row.where, prompt, row.tools, wanted, tokenizer)
            contract.breaches += [breach] if breach is not None else []
            contract.prompts += 1
    return contract


def _unended(tokenizer: Tokenizer, base: Path) -> list[Breach]:
    """Whether the base's folder names the token that ends a trained answer."""
    files = [base / "generation_config.json", base / "config.json"]
    told = [read_json(file).get("eos_token_id") for file in files if file.is_file()]
    ends = next((end for end in told if end is not None), None)
    if ends is None or tokenizer.stop_ids[0] in (ends if isinstance(ends, list) else [ends]):
        return []
    named = f"answers end with {tokenizer.stop}, and the base's own files do not say so"
    return [Breach("every row", "stops", named, CURES["stops"])]


def _breach(
    runtime: Renderer,
    where: str,
    messages: Sequence[Message],
    tools: Tools,
    wanted: list[int],
    tokenizer: Tokenizer,
) -> Breach | None:
    try:
        found = runtime.ids(messages, tools)
    except ModelError as error:
        kind = "tools" if tools or any(m.tool_calls for m in messages) else "refused"
        return Breach(where, kind, str(error), CURES.get(kind, runtime.otherwise))
    if found == wanted:
        return None
    kind = _kind(messages, tools, wanted, found, tokenizer)
    return Breach(
        where, kind, _difference(wanted, found, tokenizer), CURES.get(kind, runtime.otherwise)
    )


def _kind(
    messages: Sequence[Message],
    tools: Tools,
    wanted: list[int],
    found: list[int],
    tokenizer: Tokenizer,
) -> str:
    """What is behind a difference, as far as ids tell."""
    bos = [] if tokenizer.bos is None else tokenizer.encode_text([tokenizer.bos])[0]
    if bos and (found == bos + wanted or wanted == bos + found):
        return "BOS"
    told, seen = (tokenizer.decode(ids, skip_special=False) for ids in (wanted, found))
    if told == seen:
        return "tokens"
    if "".join(told.split()) == "".join(seen.split()):
        return "white space"
    if tools or any(m.tool_calls for m in messages):
        return "tools"
    if any(m.reasoning is not None or "</think>" in m.content for m in messages):
        return "thoughts"
    return "the date" if tokenizer.asks_date else "text"


def _difference(wanted: Sequence[int], found: Sequence[int], tokenizer: Tokenizer) -> str:
    """Where they part, and how each goes on."""
    pairs = zip(wanted, found, strict=False)
    place = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    place = min(len(wanted), len(found)) if place is None else place

    def shown(ids: Sequence[int]) -> str:
        pieces = tokenizer.pieces(ids[place : place + _SHOWN])
        return repr("".join(pieces)[:_SHOWN]) if pieces else "nothing more"

    return f"from token {place} on training has {shown(wanted)} and it has {shown(found)}"
