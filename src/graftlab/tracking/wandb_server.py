"""Whether W&B can be reached with the key that is there: asked in the background, for seconds.

A run asks when it begins and needs the answer when its data and base are loaded, so that a server
that is slow, gone or of another mind costs it nothing.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from graftlab.errors import ConfigError, require_choice
from graftlab.files.reading import load_json

LOOK_SECONDS = 5.0
"""How long an answer is waited for, from the question on."""
WAIT_SECONDS = 30
"""How long a resumed run waits for W&B's service of the killed one to end."""
HOME = "https://api.wandb.ai"
"""The server under whose name `wandb login` has long kept keys, whatever name it has now."""
MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
"""What W&B takes as $WANDB_MODE."""

_QUERY = {"query": "query Viewer { viewer { id } }", "variables": {}}


def server_url() -> str:
    """Where W&B is: $WANDB_BASE_URL, W&B's own settings files, or its default."""
    if given := os.environ.get("WANDB_BASE_URL"):
        return given.rstrip("/")
    import wandb

    return str(wandb.setup().settings.base_url).rstrip("/")


def wandb_key() -> str | None:
    """The key with which W&B would log in without asking: of the environment, or of netrc."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    import netrc

    try:
        path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        known = netrc.netrc(path)
    except (OSError, RuntimeError, netrc.NetrcParseError):  # RuntimeError: this user has no home
        return None
    for url in (HOME, server_url()):
        if found := known.authenticators(urlsplit(url).netloc):
            return found[2] or None
    return None


class Lookup:
    """One question to the server, asked by a thread of its own."""

    def __init__(self, key: str) -> None:
        self._key, self._begin = key, time.monotonic()
        self._reason: str | None = None
        self._thread = threading.Thread(target=self._ask, name="wandb-lookup", daemon=True)
        self._thread.start()

    def obstacle(self) -> str | None:
        """Why W&B cannot be used now, None when it can; waits until LOOK_SECONDS are over."""
        self._thread.join(max(0.0, self._begin + LOOK_SECONDS - time.monotonic()))
        if self._thread.is_alive():
            return f"its server did not answer within {LOOK_SECONDS:g} s"
        return self._reason

    def _ask(self) -> None:
        url = ""
        try:
            url = server_url()
            self._reason = _viewer_obstacle(url, self._key)
        except HTTPError as error:
            refused = error.code in (401, 403)
            self._reason = _wrong_key(url) if refused else f"{url} answers HTTP {error.code}"
        except Exception as error:  # name, route, certificate, proxy: each fails in its own way
            reason = getattr(error, "reason", None) or error
            self._reason = f"{url or 'its server'} cannot be reached ({reason})"


@cache
def look_up(key: str) -> Lookup:
    """The answer for this key, asked once per process."""
    return Lookup(key)


def wandb_mode(asked: str) -> tuple[str, str | None]:
    """The mode to log in, and why it is not the one that was asked for; may wait for seconds.

    Raises ConfigError where there is no key for `online`, or $WANDB_MODE is none of W&B's.
    """
    mode = check_mode(asked)
    key = wandb_key() if mode == "online" else None
    if key is None or (obstacle := look_up(key).obstacle()) is None:
        return mode, None
    return "offline", obstacle


def check_mode(asked: str) -> str:
    """W&B's own mode for `logger.wandb.mode`, begun to be looked up where that is online.

    Raises ConfigError.
    """
    key = wandb_key() if asked in ("auto", "online") else None
    mode = asked
    if asked == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if key else "offline")
        require_choice("WANDB_MODE", mode, MODES)
    elif asked == "online" and not key:
        raise ConfigError(
            "logger.wandb.mode=online, but there is no key: run `wandb login`, set "
            "WANDB_API_KEY, or use logger.wandb.mode=auto."
        )
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode == "online" and key:
        look_up(key)
    return mode


def when_free(init: Callable[..., Any], **arguments: Any) -> Any:
    """`wandb.init`, waiting for a killed run's service to let go of the run's id."""
    for attempt in range(WAIT_SECONDS):
        try:
            return init(**arguments)
        except Exception as error:  # of a class that differs between versions of wandb
            if "is in use" not in str(error) or attempt == WAIT_SECONDS - 1:
                raise
            time.sleep(1)
    raise AssertionError("unreachable: the last attempt raises or returns")


def _viewer_obstacle(url: str, key: str) -> str | None:
    """Why this key does not log in at this server. Raises what `urlopen` raises."""
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    request = Request(f"{url}/graphql", json.dumps(_QUERY).encode(), headers)
    with urlopen(request, timeout=2 * LOOK_SECONDS) as reply:  # longer than anybody waits
        answer = load_json(reply.read(2**16))
    viewer = (answer.get("data") or {}).get("viewer")
    return None if viewer else _wrong_key(url)


def _wrong_key(url: str) -> str:
    return f"{url} refuses the key (`wandb login --relogin`, or another WANDB_API_KEY)"
