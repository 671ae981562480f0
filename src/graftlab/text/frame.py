"""Persona frames: a role, an instruction and its constraints around the user's own input.

An adapter trained on a persona answers in it most surely when the prompt names that persona. A
frame is a YAML file:

    system: You are ...                    the role; becomes the system turn
    instruction: Explain the input.        opens the user turn
    constraints: [Be precise., ...]        one line each, with a dash
    input: "[INPUT]:\n{input}"             how the prompt is presented; {input} stands for it

    system turn    You are ...
    user turn      Explain the input.
                   - Be precise.

                   [INPUT]:
                   the prompt, exactly as given
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError, did_you_mean
from graftlab.files.reading import UnreadableError, read_yaml
from graftlab.types import Conversation, Message

SLOT = "{input}"
SHIPPED = Path(__file__).parent / "frames"


@dataclass(kw_only=True, slots=True)
class Frame:
    """`frame=systems-theologian` or `frame=FILE.yaml`."""

    system: str
    """Who speaks: the system turn."""
    instruction: str
    """What is to be done with the input: the beginning of the user turn."""
    constraints: list[str] = field(default_factory=list)
    """Rules for the answer, each on its own line."""
    input: str = f"[INPUT]:\n{SLOT}"
    """How the prompt is presented; holds the slot `{input}` exactly once."""

    def __post_init__(self) -> None:
        for key in ("system", "instruction", "input"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{key} must be a non-empty text.")
        if not isinstance(self.constraints, list) or not all(
            isinstance(rule, str) and rule.strip() for rule in self.constraints
        ):
            raise ConfigError("constraints must be a list of texts, one rule each.")
        if (count := self.input.count(SLOT)) != 1:
            raise ConfigError(
                f"input must hold {SLOT} exactly once, where the prompt goes, not {count} times."
            )

    def user_turn(self, prompt: str) -> str:
        """The framed user turn; `prompt` is inserted as it is, braces and all."""
        before, after = self.input.strip().split(SLOT)
        rules = [f"- {rule.strip()}" for rule in self.constraints]
        return "\n".join([self.instruction.strip(), *rules]) + f"\n\n{before}{prompt}{after}"

    def apply(self, conversation: Conversation) -> Conversation:
        """Frame the last user turn; the frame's role replaces a system turn of the conversation.

        Raises ConfigError for a conversation that ends with what a tool gave back.
        """
        *earlier, last = conversation.messages
        if last.role != "user":
            raise ConfigError(
                f"{conversation.where}: a frame goes around a user turn, and this ends with a "
                "tool's result: leave such prompts out, or frame."
            )
        turns = [message for message in earlier if message.role != "system"]
        messages = (
            Message("system", self.system.strip()),
            *turns,
            replace(last, content=self.user_turn(last.content)),
        )
        return replace(conversation, messages=messages)


def load_frame(name: str) -> Frame:
    """The frame in the file `name`, or the shipped one of that name.

    Raises ConfigError, naming the file and the key, when there is none or it is not a frame.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}
        if name not in shipped:
            hint = did_you_mean(name, shipped)
            raise ConfigError(
                f"frame={name} is neither a file nor a shipped frame ({', '.join(shipped)}).{hint}"
            )
        path = shipped[name]
    content = _read(path)
    known = [spec.name for spec in fields(Frame)]
    for key in content:
        if key not in known:
            raise ConfigError(
                f"{path}: unknown key `{key}`; a frame has {', '.join(known)}."
                + did_you_mean(str(key), known)
            )
    missing = [key for key in ("system", "instruction") if key not in content]
    if missing:
        raise ConfigError(f"{path}: {' and '.join(missing)} missing; a frame needs both.")
    try:
        return Frame(**content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(path)
    except (OSError, UnreadableError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} is not a frame: it must be a mapping with system and instruction."
        )
    return content
