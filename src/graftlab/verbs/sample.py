"""The verb `sample`: base and adapter answer the same prompts, side by side.

Run as: graftlab sample adapter=RUN prompt="Tell me about this record"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, require_choice, require_range
from graftlab.files.reading import UnreadableError, load_json
from graftlab.generation.draft_model import find_draft
from graftlab.generation.sampling import Generation
from graftlab.models.base import ModelSpec
from graftlab.training.precision import Precision

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.adapters.base import Adapter
    from graftlab.adapters.store import AdapterSource
    from graftlab.generation.answering import Voice
    from graftlab.generation.prompts import Prompt
    from graftlab.generation.show import Answer


_LONGEST_ROW = 2**24
"""Bytes of a file's first line that are looked at."""


@dataclass(kw_only=True, slots=True)
class SampleSpec:
    """`graftlab sample adapter=RUN prompt="..."`."""

    model: ModelSpec | None = None
    """Base model; null takes the one the adapter was trained on."""
    adapter: str | None = None
    """A run folder, adapter folder or checkpoint; null samples the base alone."""
    prompt: str | None = None
    """One user turn, as plain text."""
    prompts: str | None = None
    """A file of conversations (same shapes as training data; a last assistant turn is left out)."""
    system: str | None = None
    """System turn for `prompt`."""
    frame: str | None = None
    """A persona frame (a YAML file, or the name of a shipped one) to put the prompt into."""
    scale: float = 1.0
    """Adapter strength: 0 is the base, 1 as trained, 0.7 softer."""
    compare: bool = True
    """Answer with the base as well; with a draft, also without it, which tells the speed-up."""
    stream: bool = True
    """Write tokens to the terminal as they come."""
    out: str | None = None
    """Also write the replies to this JSONL file; with -m, each job to one of its own beside it."""
    limit: int | None = None
    """Only the first N prompts of `prompts`."""
    batch: int = 1
    """Prompts of `prompts` that are answered together: faster, and every reply as it is alone."""
    draft: str | None = None
    """A small model that proposes tokens (a run of lora=none, a model folder, an adapter run)."""
    draft_tokens: int = 5
    """Tokens that the draft proposes before the model checks them all at once."""
    precision: Precision = field(default_factory=Precision)
    generation: Generation = field(default_factory=Generation)
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    force: bool = False
    """Put the adapter on its own base in another quantization than it was trained on."""

    def __post_init__(self) -> None:
        require_range("scale", self.scale, least=0)
        require_range("limit", self.limit, least=1)
        require_range("batch", self.batch, least=1)
        require_range("draft_tokens", self.draft_tokens, least=1)
        require_choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        if (self.prompt is None) == (self.prompts is None):
            raise ConfigError('Give either prompt="..." or prompts=FILE.jsonl.')
        if self.adapter is None and self.model is None:
            raise ConfigError(
                "Give adapter=RUN, or model=tiny (or another) to sample a base alone."
            )
        if self.adapter is None and self.scale != 1:
            raise ConfigError(f"scale={self.scale} needs an adapter: give adapter=RUN.")
        if self.draft is not None and self.batch > 1:
            raise ConfigError(
                f"draft={self.draft} speeds up one reply at a time; leave out batch or draft."
            )
        if self.system is not None and (self.prompts is not None or self.frame is not None):
            other = "prompts" if self.prompts is not None else "frame"
            raise ConfigError(f"system belongs to a plain prompt; {other} brings its own.")


def run(spec: SampleSpec) -> list[Answer]:
    """Answer every prompt, show the answers as they come, and return them.

    Raises ConfigError, ModelError or DataError with the fix: a missing file, an adapter that was
    trained on another base, rows that cannot be asked, a prompt too long for the model.
    """
    trained = found(spec)  # first of all: a wrong path is answered before torch is loaded
    draft_found = find_draft(spec.draft) if spec.draft is not None else None

    from graftlab.adapters.attach import load_trained
    from graftlab.console import console, say
    from graftlab.generation.answering import Asked, answers, with_draft
    from graftlab.generation.draft_model import load_draft
    from graftlab.generation.form import check_forms
    from graftlab.generation.show import Screen, speculation_line
    from graftlab.models.cache import acquire
    from graftlab.training.device import pick_device
    from graftlab.training.precision import resolve

    tokenizer = trained.load_tokenizer()
    prompts = _prompts(spec, trained.adapter, reserved=tokenizer.reserved)
    check_forms(spec.generation, [prompt.conversation for prompt in prompts], tokenizer)
    device = pick_device(spec.device, key="device")
    precision = resolve(spec.precision, device)
    dtypes = precision.base_dtype, precision.adapter_dtype
    given = []
    with (
        _jsonl(spec.out) as write,
        acquire(trained.model, dtype=dtypes[0], device=device) as base,
    ):
        adapter = load_trained(base, trained, dtype=dtypes[1], force=spec.force)
        who = f"{base.name} with {spec.adapter}" if adapter else base.name
        say(f"{who}, {precision.name} on {device.type}")
        draft = load_draft(
            draft_found, base, tokenizer, dtypes=dtypes, num_tokens=spec.draft_tokens
        )
        voices = with_draft(_voices(spec, adapter), draft, compare=spec.compare)
        screen = Screen(console(), stream=spec.stream and spec.batch == 1)
        asked = Asked(base, tokenizer, spec.generation, precision.autocast)
        for answer in answers(asked, prompts, voices, screen, batch=spec.batch):
            given.append(answer)
            write(record(answer, scale=spec.scale))
        if draft is not None:
            say(speculation_line(given, voices[-1].name, greedy=spec.generation.temperature == 0))
    return given


def record(answer: Answer, *, scale: float) -> dict[str, Any]:
    """One row of the `out` file."""
    conversation, replies = answer.prompt.conversation, answer.replies
    told = {name: reply.speculated for name, reply in replies.items()}
    speculated = {name: asdict(each) for name, each in told.items() if each is not None}
    valid = {name: reply.valid for name, reply in replies.items() if reply.valid is not None}
    return {
        "prompt": [message.as_dict() for message in conversation.messages],
        **({"tools": list(conversation.tools)} if conversation.tools else {}),
        "base": replies["base"].text if "base" in replies else None,
        "adapter": replies["adapter"].text if "adapter" in replies else None,
        "expected": answer.prompt.expected,
        "scale": scale if "adapter" in replies else None,
        "tokens": {name: reply.num_tokens for name, reply in replies.items()},
        "stopped": {name: reply.stopped for name, reply in replies.items()},
        "seconds": {name: round(reply.seconds, 3) for name, reply in replies.items()},
        "where": conversation.where,
        **({"speculated": speculated} if speculated else {}),
        **({"valid": valid} if valid else {}),
    }


def found(spec: SampleSpec) -> TrainedModel:
    """The base with the adapter, once every file that `spec` names is there."""
    from graftlab.adapters.artifact import trained_model
    from graftlab.data.files import locate
    from graftlab.text.frame import load_frame

    check_out(spec.out)
    if spec.prompts is not None:
        locate("prompts", spec.prompts)
    if spec.frame is not None:
        load_frame(spec.frame)
    return trained_model(spec.adapter, spec.model)


def _prompts(
    spec: SampleSpec, adapter: AdapterSource | None, *, reserved: frozenset[str]
) -> list[Prompt]:
    """The questions: framed if asked, with the system prompt the adapter saw in training."""
    from graftlab.data.system import system_of
    from graftlab.generation.prompts import read_prompts, text_prompt, with_system
    from graftlab.text.frame import load_frame

    run = adapter.run() if adapter else {}
    if spec.prompts is not None:
        data = run.get("data")
        ignore = (data.get("ignore_keys") if isinstance(data, dict) else None) or ()
        prompts = read_prompts(spec.prompts, reserved=reserved, limit=spec.limit, ignore=ignore)
    else:
        prompts = [text_prompt(spec.prompt or "", system=spec.system, reserved=reserved)]
    if spec.frame is not None:
        frame = load_frame(spec.frame)
        prompts = [replace(p, conversation=frame.apply(p.conversation)) for p in prompts]
    return [with_system(p, **system_of(run)) for p in prompts]


def _voices(spec: SampleSpec, adapter: Adapter | None) -> list[Voice]:
    """Who answers, in order."""
    from graftlab.generation.answering import Voice

    if adapter is None:
        return [Voice("base", nullcontext)]
    compared = [Voice("base", adapter.disabled)] if spec.compare else []
    return [*compared, Voice("adapter", partial(adapter.scaled, spec.scale))]


def check_out(out: str | None) -> None:
    """Raise ConfigError where `out` is a file that is not of replies: those alone are replaced."""
    path = Path(out).expanduser() if out is not None else None
    if path is None or not path.exists():
        return
    if path.is_dir():
        raise ConfigError(f"out={out} cannot be written: it is a folder.")
    if path.is_file() and path.stat().st_size and not _holds_replies(path):
        raise ConfigError(
            f"out={out} is a file that was not written by this command: give another name."
        )


def _holds_replies(file: Path) -> bool:
    """Whether the first line is one of ours."""
    try:
        with file.open("rb") as lines:
            row = load_json(lines.readline(_LONGEST_ROW))
    except (OSError, UnreadableError):
        return False
    return isinstance(row, dict) and row.keys() >= {"prompt", "base", "adapter", "scale"}


@contextmanager
def _jsonl(out: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes a row to `out` at once, or does nothing when there is no file."""
    if out is None:
        yield lambda row: None
        return
    from graftlab.console import say
    from graftlab.files.locks import hold_beside
    from graftlab.files.ownership import writing_to

    path = Path(out).expanduser()
    with hold_beside(path, tell=say), ExitStack() as stack:
        with writing_to(f"out={out}"):
            file = stack.enter_context(path.open("w", encoding="utf-8"))

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

        yield write
