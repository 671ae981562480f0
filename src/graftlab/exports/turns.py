"""What a chat template writes between one message and the next, and the same as Ollama's TEMPLATE.

Ollama renders with Go's text/template, and reads no Jinja. Nearly every chat template writes fixed
words between messages, which depend on the role before and the role after:

    "" -> user                  <s>[INST]
    user -> assistant           [/INST]
    assistant -> user           </s>[INST]
    user -> ""                  [/INST]

These words are found by rendering conversations of marked messages; then the same conversations are
rendered by both, and a template that is not of this kind is told by the first text that differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from graftlab.errors import ModelError
from graftlab.types import Message

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer

Ask = Callable[[Sequence[Message]], str]
"""The text of a conversation, with what asks for the next answer."""

USUAL = {"system": "", "user": "assistant", "assistant": "user"}
"""The role before each role, where the template was not seen to write another pair; "": none."""
OPENED, CLOSED = "<think>\n", "\n</think>\n\n"
DAYS = ("2021-03-04", "2035-11-28")


def chat(system: str | None, *contents: str) -> list[Message]:
    """A system turn where there is one, then questions and answers in turn."""
    roles = ("user", "assistant")
    turns = [Message(roles[number % 2], content) for number, content in enumerate(contents)]
    return [*([] if system is None else [Message("system", system)]), *turns]


CONVERSATIONS = {
    "a single question": chat(None, "Who composed it?"),
    "several turns": chat(None, "Hi", "Hello.", "Who?", "Ficino.", "And when?"),
    "a system turn": chat("You are brief.", "Who composed it?"),
    "a system turn and several turns": chat("Be brief.", "Hi", "Hello.", "Who?", "He.", "When?"),
    "an empty system turn": chat("", "Who composed it?"),
    "an empty system turn and several turns": chat("", "Hi", "Hello.", "Who?"),
    "braces and markup in content": chat(
        None, "A {b} {{ c }} <b>\"d\"</b> & 'e'", "{{- x -}} {% raw %}", "`f` \\n $was"
    ),
    "braces and markup in a system turn": chat("Use {{ name }} and {% raw %}.", "<b>&</b>"),
    "lines in content": chat(None, "One.\n\nTwo.", "Three.\n- four\n\n\n- five", "Six.\nSeven."),
}
"""What both must render alike; rows with a system turn where the template takes one."""
PADDED = chat(None, " Hi \n", " Hello. \n", "  Who? ")


class UnlikeError(Exception):
    """Why a template is not told by what stands between messages."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template as what it writes between messages."""

    between: Mapping[tuple[str, str], str]
    """(role before, role) -> text; "" stands for the beginning and, as a role, for the end."""
    late: str | None = None
    """The system text stands in the last question; this is between them. None: where it is sent."""
    skips_empty: bool = False
    """A system turn without a text is as none."""
    forgets_thoughts: bool = False
    """An answer's thinking is not shown once the next question is asked."""

    @property
    def has_system(self) -> bool:
        """Whether system turns are written."""
        return self.late is not None or ("", "system") in self.between

    def _takes(self, system: str) -> bool:
        return self.has_system and bool(system or not self.skips_empty)

    def before(self, role: str, was: str) -> str:
        """What stands before a message, behind one of the role `was`."""
        return self.between.get((was, role), self.between[USUAL[role], role])

    def text(self, messages: Sequence[Message]) -> str:
        """What `go_template` renders in Ollama. Thoughts are not shown: a question comes last."""
        written, was, messages = "", "", _collated(messages)
        systems = [message.content for message in messages if message.role == "system"]
        for number, message in enumerate(messages):
            role, content = message.role, message.content
            if role == "system" and (self.late is not None or not self._takes(content)):
                continue
            written += self.before(role, was)
            last = role == "user" and number == len(messages) - 1
            if last and self.late is not None and any(map(self._takes, systems)):
                written += "\n\n".join(systems) + self.late
            written += content
            was = role
        return written if was == "assistant" else written + self.between["user", ""]

    def go_template(self) -> str:
        """The TEMPLATE of a Modelfile; its text is that of `text`."""
        branches = {"user": self._user(), "assistant": self._assistant()}
        if self.late is not None:
            branches["system"] = "{{ $system = true }}"
        elif self.has_system:
            branches["system"] = self._written("system")
        if self.has_system and self.skips_empty:
            branches["system"] = f"{{{{ if .Content }}}}{branches['system']}{{{{ end }}}}"
        lines = ['{{- $was := "" }}']
        lines += ["{{- $system := false }}"] if self.late is not None else []
        lines += ["{{- range $i, $_ := .Messages }}"]
        for number, role in enumerate(sorted(branches, key=list(USUAL).index)):
            lines += [f'{{{{- {"else " * (number > 0)}if eq .Role "{role}" }}}}{branches[role]}']
        end = _literal(self.between["user", ""])
        lines += [
            "{{- end }}",
            "{{- end }}",
            f'{{{{- if ne $was "assistant" }}}}{end}{{{{ end }}}}',
        ]
        return "\n".join(lines)

    def _user(self) -> str:
        if self.late is None:
            return self._written("user")
        last = "and $system (eq (len (slice $.Messages $i)) 1)"
        system = f"{{{{ if {last} }}}}{{{{ $.System }}}}{_literal(self.late)}{{{{ end }}}}"
        return self._written("user", system)

    def _assistant(self) -> str:
        if not self.forgets_thoughts:
            return self._written("assistant")
        # Ollama finds the words around thinking here, to take it from the answers it gives out.
        last = "and .Thinking (eq (len (slice $.Messages $i)) 1)"
        thought = f"{{{{ if {last} }}}}{OPENED}{{{{ .Thinking }}}}{CLOSED}{{{{ end }}}}"
        return self._written("assistant", thought)

    def _written(self, role: str, extra: str = "") -> str:
        """A message of this role, by the role before it."""
        texts = {was: self.before(role, was) for was in ("", *USUAL)}
        usual = texts[USUAL[role]]
        shared = _shared_end(list(texts.values()))
        cut = {was: text[: len(text) - len(shared)] for was, text in texts.items()}
        rest = _literal(usual[: len(usual) - len(shared)])
        others = {was: text for was, text in cut.items() if texts[was] != usual}
        if others == {"": ""}:
            made = f"{{{{ if $was }}}}{rest}{{{{ end }}}}"
        else:
            made = ""
            for was, text in others.items():
                made += f'{{{{ {"else " * bool(made)}if eq $was "{was}" }}}}{_literal(text)}'
            made += (f"{{{{ else }}}}{rest}" if rest else "") + "{{ end }}" if others else rest
        return f'{made}{_literal(shared)}{extra}{{{{ .Content }}}}{{{{ $was = "{role}" }}}}'


def turns_of(tokenizer: Tokenizer, *, adds_bos: bool) -> Turns:
    """What the tokenizer's template writes between messages, but for a BOS that the runtime adds.

    Raises UnlikeError where it is no such template, or depends on the day.
    """
    ask = asking(tokenizer, adds_bos=adds_bos)
    if tokenizer.asks_date and len({_on(day, tokenizer, ask) for day in DAYS}) > 1:
        raise UnlikeError("it writes the date of the day, which Ollama has in another form")
    turns = _learn(ask)
    for name, messages in CONVERSATIONS.items():
        wanted = _try(ask, messages)
        if wanted is not None and turns.text(messages) != wanted:
            raise UnlikeError(f"{name} is not rendered alike")
    return turns


def asking(tokenizer: Tokenizer, *, adds_bos: bool) -> Ask:
    """The tokenizer's own rendering, without the BOS where a runtime puts it before every text."""

    def ask(messages: Sequence[Message]) -> str:
        text = tokenizer.render_text(messages, generation_prompt=True)
        return text.removeprefix(tokenizer.bos or "") if adds_bos else text

    return ask


def strips_content(tokenizer: Tokenizer) -> bool:
    """Whether the template takes white space from the ends of messages, as Ollama does not."""
    text = tokenizer.render_text(PADDED, generation_prompt=True)
    return any(message.content not in text for message in PADDED)


def _collated(messages: Sequence[Message]) -> list[Message]:
    """Messages of one role that follow each other as one, as Ollama hands them to a template."""
    runs = (list(run) for _, run in groupby(messages, attrgetter("role")))
    return [replace(run[0], content="\n\n".join(m.content for m in run)) for run in runs]


def _learn(ask: Ask) -> Turns:
    between = {}
    one, three = chat(None, "question0"), chat(None, "question0", "answer0", "question1")
    between["", "user"], between["user", ""] = _parts(ask, one)
    _, between["user", "assistant"], between["assistant", "user"], _ = _parts(ask, three)
    late, skips = None, False
    if found := _try(ask, chat("system0", *(m.content for m in three))):
        if found.find("system0") > found.find("answer0"):
            found = found.partition("system0")[2]
            late = found.partition("question1")[0]
        elif "system0" in found:
            first, second, _ = _parts(ask, chat("system0", "question0"))
            between["", "system"], between["system", "user"] = first, second
        skips = _try(ask, chat("", "question0")) == ask(one)
    begun = [Message("assistant", "answer0"), *one]  # Ollama drops what does not fit
    for was, messages in {"": begun, "system": [Message("system", "system0"), *begun]}.items():
        try:
            between[was, "assistant"] = _parts(ask, messages)[-3]
        except (UnlikeError, ModelError):
            continue  # no such conversation could be trained
    thinking = [one[0], Message("assistant", f"{OPENED}thought0{CLOSED}answer0"), three[2]]
    told = _try(ask, thinking)
    return Turns(between, late, skips, told is not None and "thought0" not in told)


def _parts(ask: Ask, messages: Sequence[Message]) -> list[str]:
    """The texts before, between and behind messages, each of which is written once, in order."""
    parts, text = [], ask(messages)
    for message in messages:
        before, found, text = text.partition(message.content)
        if not found or message.content in text:
            raise UnlikeError("it does not write each message once, in order")
        parts.append(before)
    return [*parts, text]


def _try(ask: Ask, messages: Sequence[Message]) -> str | None:
    """The text, or None where the template refuses such a conversation."""
    try:
        return ask(messages)
    except ModelError:
        return None


def _on(day: str, tokenizer: Tokenizer, ask: Ask) -> tuple[str | None, ...]:
    """What is rendered on that day."""
    kept, tokenizer.date = tokenizer.date, day
    try:
        return tuple(_try(ask, chat) for chat in CONVERSATIONS.values())
    finally:
        tokenizer.date = kept


def _shared_end(texts: Sequence[str]) -> str:
    """The longest text that all end in."""
    least = min(texts, key=len)
    ends = (least[start:] for start in range(len(least) + 1))
    return next(end for end in ends if all(text.endswith(end) for text in texts))


def _literal(text: str) -> str:
    """A text as it stands in a Go template within a Modelfile.

    Braces would open an action, three quotes would end the value, and Ollama drops what is not
    printable: all of these become strings of Go.
    """

    def written(found: str) -> str:
        if len(found) == 1 and found != "{" and (found.isprintable() or found in "\n\t"):
            return found
        return f'{{{{ "{"".join(f"{chr(92)}U{ord(sign):08x}" for sign in found)}" }}}}'

    return re.sub(r'\{+|"{3,}|[^{]', lambda match: written(match[0]), text)
