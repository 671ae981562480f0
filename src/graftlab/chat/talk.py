"""The chat's loop: every message is a question, or a command that begins with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graftlab.chat.session import Chat
from graftlab.chat.window import Window
from graftlab.columns import table
from graftlab.errors import ConfigError, GraftlabError, did_you_mean
from graftlab.process import ctrl_c_answered


@dataclass(frozen=True, slots=True)
class Command:
    """One `/word`."""

    meaning: str
    answer: Callable[[Chat, Window, str], None]
    """Gets what stands behind the word."""
    argument: str = ""
    """What must stand there, for people; empty where nothing may."""
    needed: bool = True
    """Whether it must, or only may."""


def talk(chat: Chat, window: Window) -> None:
    """Answer every message until the input ends.

    At a terminal a mistake is told and the chat goes on; elsewhere it raises ConfigError, naming
    the line.
    """
    for where, message in window.messages():
        try:
            _answer(chat, window, message)
        except EOFError:
            return
        except GraftlabError as error:
            if not window.interactive:
                raise ConfigError(f"{where}: {error}") from error
            window.note(str(error))
        except KeyboardInterrupt:
            if not window.interactive:
                raise
            ctrl_c_answered()


def _answer(chat: Chat, window: Window, message: str) -> None:
    if not message.startswith("/") or message.startswith("//"):
        text = message.removeprefix("/") if message.startswith("//") else message
        window.hear(lambda **how: chat.ask(text, **how))
        return
    word, _, rest = message.partition(" ")
    rest = rest.strip()
    command = COMMANDS.get(word)
    if command is None:
        hint = did_you_mean(word, COMMANDS) or " /help lists them."
        raise ConfigError(
            f"`{word}` is not a command.{hint} A message may begin with // to begin with a slash."
        )
    if rest and not command.argument:
        raise ConfigError(f"{word} stands alone.")
    if not rest and command.argument and command.needed:
        raise ConfigError(f"{word} needs {command.argument} behind it.")
    command.answer(chat, window, rest)


def _system(chat: Chat, window: Window, text: str) -> None:
    if text:
        chat.set_system(text)
    window.note(f"system: {chat.system}" if chat.system else "there is no system turn.")


def _scale(chat: Chat, window: Window, text: str) -> None:
    try:
        scale = float(text)
    except ValueError:
        raise ConfigError(f"/scale {text}: it must be a number, such as 0.7.") from None
    chat.set_scale(scale)
    window.note(f"the adapter answers at {scale:g} of its strength.")


def _base(chat: Chat, window: Window, _: str) -> None:
    window.hear(chat.ask_base, "base")


def _undo(chat: Chat, window: Window, _: str) -> None:
    window.note(f"taken back: {chat.undo()}")


def _reset(chat: Chat, window: Window, _: str) -> None:
    chat.reset()
    window.note("begun anew.")


def _save(chat: Chat, window: Window, text: str) -> None:
    window.note(f"saved: {chat.save(text)}")


def _help(chat: Chat, window: Window, _: str) -> None:
    rows = {f"{word} {each.argument}".strip(): each.meaning for word, each in COMMANDS.items()}
    more = "A line that ends with \\ goes on in the next one. Ctrl-C stops a reply."
    window.note("\n".join([*table(rows), more]))


def _quit(chat: Chat, window: Window, _: str) -> None:
    raise EOFError


COMMANDS = {
    "/system": Command("another system turn, or show the present one", _system, "TEXT", False),
    "/scale": Command("strength of the adapter: 0 is the base, 1 as trained", _scale, "X"),
    "/base": Command("let the base answer the last question as well", _base),
    "/undo": Command("take the last question and its answer back", _undo),
    "/reset": Command("begin anew, with the same system turn", _reset),
    "/save": Command("write the conversation as a row of training data", _save, "FILE"),
    "/help": Command("this list", _help),
    "/quit": Command("end; so does Ctrl-D", _quit),
}
