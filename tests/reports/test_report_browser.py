"""The page in a real browser: it sorts, filters, lights up and compares, and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, chromium
from graftlab.reports.compare import Comparison
from graftlab.reports.gather import gather
from graftlab.reports.importance import importance
from graftlab.reports.page import write_page
from run_folders import grid, write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium (apt install chromium)"),
]

RANKS, RATES = [4, 16, 64], [1e-4, 1e-3, 1e-2]
HOSTILE = "</script><b id=planted>bold</b>\n\n**base**"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 finished runs and one that failed."""
    root = tmp_path_factory.mktemp("sweep")
    grid(root, {"lr": RATES, "lora.rank": RANKS}, seeds=2)
    sample = {"prompt": "Who?", "base": HOSTILE, "adapter": "It is run 18.", "expected": "Me."}
    write_run(root / "18", {"lr": 1e-3, "lora.rank": 128}, score=9.5, samples=[sample])
    failed = write_run(root / "19", {"lr": 0.5}, finished=False)
    (failed / "error.txt").write_text("ValueError: no", encoding="utf-8")
    found = Comparison(gather([root]))
    path = write_page(found, importance(found.points, found.parameters), root)
    assert path is not None
    return path


@pytest.fixture
def browser(report: Path, tmp_path: Path) -> Iterator[Browser]:
    """The page, opened; afterwards no script has failed and nothing was asked for."""
    opened = Browser(tmp_path / "profile")
    opened.open(report)
    yield opened
    asked = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    errors = opened.errors
    opened.close()
    assert asked == [report.resolve().as_uri()]
    assert errors == []


def column(browser: Browser, key: str) -> list[str]:
    """The visible cells under a head."""
    return browser.run(
        f"(() => {{ const head = document.querySelector('#table th[data-key=\"{key}\"]');"
        "return [...document.querySelectorAll('#table tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.cells[head.cellIndex].textContent); })()"
    )


def test_a_click_on_a_head_sorts(browser: Browser) -> None:
    head = '#table th[data-key="lora.rank"] button'
    browser.click(head)
    ranks = [int(text) for text in column(browser, "lora.rank")]
    assert ranks == sorted(ranks)
    assert len(ranks) == 20
    browser.click(head)
    assert [int(text) for text in column(browser, "lora.rank")] == sorted(ranks, reverse=True)
    assert browser.run("document.querySelectorAll('[aria-sort=descending]').length") == 1
    browser.click('#table th[data-key="cost"] button')
    assert column(browser, "cost")[-1] == "–"  # what is missing is last


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        ("rank=16", 7),
        ("lora.rank>16 lr<=0.001", 5),
        ("state!=done", 1),
        ("failed", 1),
        ("lr=0.001 seed=0", 4),
        ("nothing-like-this", 0),
        ("nokey=3", 20),
    ],
)
def test_the_filter_keeps_what_it_says(typed: str, rows: int, browser: Browser) -> None:
    browser.click("#filter")
    browser.type(typed)
    wanted = "no such column" if "nokey" in typed else f"{rows} of 20"
    browser.until(f"document.getElementById('shown').textContent === '{wanted}'")
    assert len(column(browser, "run")) == rows
    assert browser.run("document.getElementById('filter').matches('.wrong')") == (rows == 20)


def test_the_filter_holds_for_the_charts(browser: Browser) -> None:
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.until("document.querySelectorAll('#curves-chart .trace').length === 20")
    browser.click("#filter")
    browser.type("rank=64")
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.until("document.querySelectorAll('#curves-chart .trace').length === 6")
    legend = browser.run("document.querySelector('#curves-chart .legend').textContent")
    assert "rank=64 lr=0.0001" in legend
    for kind, axis in (("by", "seconds"), ("loss", "both"), ("scale", "log")):
        browser.click(f'[name="curves-{kind}"][value="{axis}"]')
    browser.until("document.querySelectorAll('#curves-chart .trace').length === 12")
    assert "seconds of training" in browser.run(
        "document.querySelector('#curves-chart .infolayer').textContent"
    )


def test_pointing_at_a_curve_lights_up_the_run(browser: Browser) -> None:
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.until("document.querySelectorAll('#curves-chart .trace').length === 20")
    spot = browser.run(  # the last point of the worst run, whose loss is far above all others
        "(() => { const g = document.getElementById('curves-chart'), l = g._fullLayout;"
        "const b = g.getBoundingClientRect(), m = l.margin, run = data.runs[18].valid;"
        "return [b.x + l._size.l + l.xaxis.d2p(run.step.at(-1)),"
        "b.y + l._size.t + l.yaxis.d2p(run.loss.at(-1))]; })()"
    )
    browser.point(spot[0] - 30, spot[1])
    browser.point(spot[0] - 2, spot[1])
    browser.until("page.lit === 18")
    assert browser.run("document.querySelectorAll('#curves-chart .trace.on').length") == 1
    assert browser.run("document.querySelector('#table tr.on').dataset.run") == "18"
    told = browser.until("document.querySelector('#curves-chart .hoverlayer').textContent")
    assert "rank=128" in told
    assert "nats per trained token" in told
    opacities = "[...document.querySelectorAll('#curves-chart .trace')]"
    opacities += ".map((trace) => getComputedStyle(trace).opacity)"
    assert sorted(browser.run(opacities)) == ["0.12"] * 19 + ["1"]
    browser.point(5, 5)
    browser.until("page.lit === null")
    assert browser.run("document.querySelectorAll('.dim').length") == 0


def test_ticked_runs_are_put_side_by_side(browser: Browser) -> None:
    browser.click('tr[data-run="18"] input')
    assert browser.run("document.getElementById('differences-chosen').textContent") == ""
    browser.click('tr[data-run="0"] input')
    said = browser.run(
        "[...document.querySelectorAll('#samples-chosen td')].map((cell) => cell.textContent)"
    )
    assert said == ["Who?", "Me.", HOSTILE, "It is run 18."]
    assert browser.run("document.getElementById('planted')") is None
    keys = browser.run(
        "[...document.querySelectorAll('#differences-chosen code')].map((code) => code.textContent)"
    )
    assert keys == ["lora.rank", "lr", "run_dir"]


def test_every_chart_is_drawn_on_light_and_dark_paper(browser: Browser) -> None:
    for scheme, paper in (("dark", "rgb(22, 24, 27)"), ("light", "rgb(252, 251, 249)")):
        browser.scheme(scheme)
        for name, drawn in (("curves", 20), ("parallel", 19), ("maps", 0), ("cost", 2)):
            browser.run(f"document.getElementById('{name}').scrollIntoView()")
            browser.until(f"document.querySelector('#{name}-chart .main-svg')")
            traces = f"document.querySelectorAll('#{name}-chart .trace').length"
            browser.until(f"{traces} === {drawn}")
        assert browser.run("getComputedStyle(document.body).backgroundColor") == paper
    assert browser.run("document.querySelectorAll('#maps-chart .hm').length") == 1
    buttons = browser.run(
        "[...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)"
    )
    assert set(buttons) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}
