"""The part of the page that tells of a tuning: its numbers, its picture, and nothing that runs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

from graftlab.reports.tuned import FILE, tunings
from graftlab.tracking.ranking import Ranking
from graftlab.tuning.proposal import propose
from graftlab.tuning.written import write_json
from surfaces import EPOCH, RATES, grid, surface, tuned

HOSTILE = "</script><script>alert(1)</script>"


def written(folder: Path) -> Path:
    loss, base = surface(7)
    _, seen, _ = tuned(grid(), loss, base)
    found = propose(grid(), seen, base=base, epochs={n * EPOCH: n for n in (1, 2, 4)})
    assert found is not None
    found.notes.append(HOSTILE)
    write_json(found, folder, Ranking())
    return folder


def test_the_section_shows_the_proposal_and_a_band_for_each_rank(tmp_path: Path) -> None:
    (text,) = tunings([written(tmp_path)])
    told = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert f"lr={told['values']['lr']}" in text
    assert f"{told['regret']['middle']:.4f}" in text
    picture = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    bands = picture.findall("polygon")
    assert len(bands) == len(picture.findall("polyline")) == 4
    points = [tuple(map(float, p.split(","))) for p in bands[0].get("points", "").split()]
    assert len(points) == 2 * len(RATES)
    lower, upper = points[: len(RATES)], reversed(points[len(RATES) :])
    assert all(a[0] == b[0] and a[1] >= b[1] for a, b in zip(lower, upper, strict=True))
    assert "<script" not in text
    assert "&lt;script" in text


def test_a_file_that_is_not_whole_gives_no_section(tmp_path: Path) -> None:
    whole = json.loads((written(tmp_path) / FILE).read_text(encoding="utf-8"))
    assert list(tunings([tmp_path / "nothing"])) == []
    for broken in (
        "{",
        "[]",
        json.dumps({**whole, "regret": HOSTILE}),
        json.dumps({**whole, "curves": {"across": "lr", "values": ["x"], "lines": {}}}),
    ):
        (tmp_path / FILE).write_text(broken, encoding="utf-8")
        assert list(tunings([tmp_path])) == []
