"""A Modelfile says what was meant once Ollama has read it, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.modelfile import Modelfile


def as_ollama_reads(text: str) -> list[tuple[str, str]]:
    """(command, value) after the rules of Ollama's parser: values end at a line end outside of
    quotes, and what is not printable is dropped; written anew from their description."""
    found, buffer, name = [], "", ""
    for sign in text:
        if not name and not buffer.strip() and sign == "\n":
            buffer = ""
            continue
        if buffer.startswith("#") and sign != "\n":
            continue
        if buffer.startswith("#"):
            buffer = ""
            continue
        if not name and sign == " ":
            if buffer == "PARAMETER":
                buffer += " "
                continue
            name, buffer = buffer, ""
            continue
        if name and sign == "\n":
            value = unquoted(buffer.strip())
            if value is not None:
                found.append((name, value))
                name, buffer = "", ""
                continue
        if sign.isprintable() or sign in "\n\t":
            buffer += sign
    assert not name
    return found


def unquoted(value: str) -> str | None:
    """None where the quotes are not closed yet."""
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            closed = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if closed else None
    return value


FULL = Modelfile(
    source="./model.gguf",
    template='{{- $was := "" }}\n{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ end }}',
    system='You are "brief".\nAlways. ',
    parameters=(("temperature", "0.3"), ("stop", "<|im_end|>"), ("stop", " User:"), ("stop", '"')),
    licenses=("MIT\n\n  Permission is granted.\n", "and another"),
    comments=("ollama create NAME -f Modelfile", "", "and more"),
)


def test_ollama_and_we_read_what_was_meant() -> None:
    text = FULL.text()
    assert text.startswith("# ollama create NAME -f Modelfile\n#\n# and more\nFROM ./model.gguf\n")
    assert Modelfile.read(text) == FULL
    assert as_ollama_reads(text) == [
        ("FROM", "./model.gguf"),
        ("TEMPLATE", FULL.template),
        ("SYSTEM", FULL.system),
        *((f"PARAMETER {name}", value) for name, value in FULL.parameters),
        *(("LICENSE", text) for text in FULL.licenses),
    ]


@given(st.text(alphabet='a" \n\tü{}#', max_size=12))
def test_any_value_comes_back_or_is_refused(value: str) -> None:
    made = Modelfile(source="a", system=value, parameters=(("stop", "b"),))
    try:
        text = made.text()
    except ConfigError:
        assert '"""' in value
        return
    assert '"""' not in value
    wanted = [("FROM", "a"), ("SYSTEM", value), ("PARAMETER stop", "b")]
    assert as_ollama_reads(text) == wanted
    assert Modelfile.read(text) == made


def test_what_has_no_escape_is_refused_all_at_once() -> None:
    made = Modelfile(source="a", system='Say """.', licenses=("a\u200bb\x0c",))
    with pytest.raises(ConfigError, match=r'SYSTEM holds """.*LICENSE holds U\+000C, U\+200B'):
        made.text()
    with pytest.raises(ModelError, match="'Hello' is no line of ours"):
        Modelfile.read("FROM a\nHello\n")
