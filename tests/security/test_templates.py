"""A chat template that does not end is ended, in whatever thread it renders."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from graftlab.errors import ModelError
from graftlab.text import limit
from hostile import Attack

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
RECURSIVE = (
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No template has time; the endless ones are all that is rendered here."""
    monkeypatch.setattr(limit, "SECONDS", 0.05)
    monkeypatch.setattr(limit, "TICK", 0.01)


@pytest.mark.parametrize("template", [ENDLESS, RECURSIVE])
@pytest.mark.usefixtures("hasty")
def test_an_endless_template_is_ended(attack: Attack, template: str) -> None:
    folder = attack.folder / "model"
    shutil.copytree(attack.model, folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    attack.refused(
        *("sample", "model=hf", f"model.path={folder}", "prompt=Hi"), saying="loop for ever"
    )


def test_a_template_of_megabytes_is_refused() -> None:
    from graftlab.text.template import compile_template

    with pytest.raises(ModelError, match="2,097,152 characters, and at most"):
        compile_template("x" * 2**21)


@pytest.mark.usefixtures("hasty")
def test_our_own_rendering_is_ended_in_a_worker_thread() -> None:
    from graftlab.text.template import compile_template

    render, said = compile_template(ENDLESS), []

    def work() -> None:
        try:
            with limit.in_time():
                render(messages=[])
        except ModelError as error:
            said.append(str(error))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert "loop for ever" in said[0]


def test_what_ends_in_time_is_left_alone() -> None:
    with limit.in_time(60.0):
        pass
    assert not limit._WATCHER.deadlines
    with pytest.raises(ValueError, match="own"), limit.in_time(60.0):
        raise ValueError("its own")


def test_an_error_that_comes_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher raises while the block is left: never later, in code that knows nothing of it."""
    import ctypes

    leave = limit._WATCHER.leave

    def late(me: int) -> bool:
        leave(me)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(me), ctypes.py_object(limit._TimeOverError)
        )
        return True

    monkeypatch.setattr(type(limit._WATCHER), "leave", lambda self, me: late(me))
    with pytest.raises(ModelError, match="loop for ever"), limit.in_time(60.0):
        pass


@pytest.mark.parametrize("power", ["{{ 9 ** 9 ** 9 }}", "{% set x = 9**9**9 %}"])
def test_powers_are_refused_before_they_are_computed(power: str, tmp_path: Path) -> None:
    from graftlab.text.template import compile_template

    with pytest.raises(ModelError, match="power"):
        compile_template(power)
    assert compile_template("a ** b {{ 2 * 3 }}")() == "a ** b 6"
