"""Where texts are sent and with which key: both checked at once, and no part of the key told.

An endpoint may quote the key, or the end of it, in an error or an answer: what it says passes
`hidden` before it is shown or kept.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from graftlab.errors import ConfigError

OPENAI = "OPENAI_API_KEY"
"""The variable that is read unless another is named."""
IN_MESSAGES, IN_ANSWERS = 4, 8
"""Characters in a row that count as a part of a key: an answer of others is not to be changed for
what may stand there by chance."""
MASK = "***"
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class KeyNames:
    """The keys that name an endpoint, for messages."""

    url: str
    model: str
    key_env: str


def check_address(url: str, key_env: str | None, names: KeyNames) -> None:
    """Raise ConfigError for what is no address of an endpoint, or holds a secret."""
    if "@" in url or "?" in url or "#" in url:
        raise ConfigError(
            f"{names.url} must hold no user, password or query (no @, ? or #), which would be "
            f"written into files: put the key into the variable that {names.key_env} names."
        )
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        known = False
    if not known or not url.isprintable() or " " in url:
        raise ConfigError(
            f"{names.url}={url} must begin with http:// or https:// and go on with a host, as in "
            "http://127.0.0.1:8000/v1."
        )
    if key_env is not None and key_env not in os.environ and not _NAME.fullmatch(key_env):
        raise ConfigError(
            f"{names.key_env} must be the name of an environment variable, as in "
            f"{names.key_env}=MY_KEY; the key itself is not for a command line."
        )


def key_for(url: str, variable: str | None) -> str | None:
    """The API key for a host; OpenAI's is never sent in the clear, nor to a server on loopback.

    Raises ConfigError for one that no header can hold.
    """
    if variable is None or (variable == OPENAI and urlsplit(url).scheme != "https"):
        return None
    key = os.environ.get(variable)
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"${variable} holds a line break or another character that no API key has: set it anew."
        )
    return key


def hidden(said: str, key: str | None, least: int) -> str:
    """`said` with *** for each part of the key that is `least` characters long or more."""
    parts = {key[at : at + least] for at in range(len(key) - least + 1)} if key else set()
    covered = bytearray(len(said))
    for part in parts:
        at = said.find(part)
        while at >= 0:
            covered[at : at + least] = b"\x01" * least
            at = said.find(part, at + 1)
    runs = [run.span() for run in re.finditer(rb"\x00+|\x01+", covered)]
    return "".join(MASK if covered[start] else said[start:end] for start, end in runs)
