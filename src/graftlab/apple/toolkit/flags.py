"""What the table is made of: a flag with the graftlab words it becomes, a word with its flags."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass

Values = dict[str, str]
"""Flag -> its text, for those that were given or have a default; "" for a switch that is on."""

Said = Collection[str]
"""Keys that plain words set, which need not be found out."""

MISSING = "may be missing"
"""Among the values, though no flag: the line is only printed, and its files need not be there."""

PRECISIONS = {
    "f32": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "bf16-mixed": "bf16-mixed",
    "f16-mixed": "fp16-mixed",
    "fp16-mixed": "fp16-mixed",
}
"""Names of precisions that are in use for the toolkit -> ours."""


def text(given: str) -> str:
    """Any text."""
    return given


def whole(given: str) -> str:
    """A whole number. Raises ValueError."""
    int(given)
    return given


def number(given: str) -> str:
    """A number, kept as it was typed. Raises ValueError."""
    float(given)
    return given


def precision(given: str) -> str:
    """Our name of a precision. Raises ValueError."""
    name = given.lower().replace("_", "-")
    if name not in PRECISIONS:
        raise ValueError(given)
    return PRECISIONS[name]


WANTED: dict[Callable[[str], str], str] = {
    text: "a text",
    whole: "a whole number",
    number: "a number",
    precision: f"one of {', '.join(PRECISIONS)}",
}
"""How a value is read -> what it has to be, for people."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, and what is said to graftlab for it."""

    name: str
    """As the toolkit spells it, with hyphens and without the leading two."""
    meaning: str
    words: str = ""
    """The graftlab words, with blanks between them; {} stands for the value."""
    read: Callable[[str], str] = text
    default: str | None = None
    """The toolkit's default, where it has to be said because ours is another one."""
    _: KW_ONLY
    otherwise: str = ""
    """The words where the flag is not given."""
    keys: str = ""
    """What it is here, where the words depend on more than this flag."""
    switch: bool = False
    """Whether it takes no value."""
    required: bool = False
    note: str = ""
    """What is said when it is given, if it changes nothing here."""

    @property
    def shown(self) -> str:
        """The flag and its value, for help."""
        value = "" if self.switch else f" {self.name.split('-')[-1].upper()}"
        return f"--{self.name}{value}"

    @property
    def target(self) -> str:
        """The graftlab keys that it sets, for help."""
        if self.keys or self.note:
            return self.keys or "(nothing to set here)"
        words = self.words.split()
        valued = [word for word in words if "{}" in word]
        return " ".join(word.partition("=")[0] for word in valued or words)

    def translated(self, values: Values) -> list[str]:
        """The graftlab words for this flag."""
        if self.name not in values:
            return self.otherwise.split()
        return [word.replace("{}", values[self.name]) for word in self.words.split()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One script of the toolkit."""

    name: str
    verb: str
    meaning: str
    fixed: tuple[str, ...]
    """Words that are always said."""
    flags: tuple[Flag, ...]
    more: tuple[Callable[[Values, Said], list[str]], ...]
    """Words that depend on several flags, or on what lies on the disk; they come first."""
