"""The page without a browser: whole, escaped, quick and small, with what Python itself writes."""

from __future__ import annotations

import json
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from graftlab.reports.compare import Comparison
from graftlab.reports.gather import gather
from graftlab.reports.importance import importance
from graftlab.reports.page import PAGE, SCRIPTS, page, write_page
from run_folders import grid, write_run

HOSTILE = "</script><script>alert(1)</script> <!-- & ${x} \u2028"


class Reader(HTMLParser):
    """Text outside of scripts and styles, ids, and everything that a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")
        for name, value in attrs:
            if name in ("src", "srcset", "data") or (name == "href" and tag != "a"):
                self.fetched.append(str(value))
            if name == "href":
                self.links.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.texts.append(data)


def made(folder: Path, library: str = "") -> str:
    found = Comparison(gather([folder]))
    return page(found, importance(found.points, found.parameters), library=library)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("hostile")
    sample = dict.fromkeys(("prompt", "base", "adapter", "expected"), HOSTILE)
    write_run(root / "0<b>", {"data.system_prompt": HOSTILE, "seed": 1}, samples=[sample])
    write_run(root / "1", {"lr": 0.5}, score=2.0)
    failed = write_run(root / "2", {"lr": 0.25}, finished=False)
    (failed / "error.txt").write_text(f"Traceback\nValueError: {HOSTILE}", encoding="utf-8")
    return root, made(root)


def test_whatever_the_runs_hold_is_text(hostile: tuple[Path, str]) -> None:
    reader = Reader(hostile[1])
    assert len(reader.scripts) == 2 + len(SCRIPTS)  # the data, the library and ours
    assert reader.handlers == []
    shown = "".join(reader.texts)
    assert shown.count("alert(1)") > 2
    data = json.loads(reader.scripts[0])
    assert "\n".join(HOSTILE.splitlines()) in data["texts"]
    assert any(HOSTILE in run["config"].values() for run in data["runs"])


def test_the_lowest_loss_is_told_with_its_measure(tmp_path: Path) -> None:
    write_run(tmp_path / "0", measure="DPO <sigmoid> loss per pair")
    tile = "<span>lowest validation loss (DPO &lt;sigmoid&gt; loss per pair)</span>"
    assert tile in made(tmp_path)


def test_nothing_is_fetched_and_links_lead_to_sections(hostile: tuple[Path, str]) -> None:
    reader = Reader(hostile[1])
    assert reader.fetched == []
    assert len(reader.links) == 10
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


def test_the_library_fits_into_a_page() -> None:
    from plotly.offline import get_plotlyjs

    assert "</script" not in get_plotlyjs()


def test_our_scripts_are_short_and_say_what_they_are() -> None:
    import graftlab.reports.page as package

    folder = Path(package.__file__).parent
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)
    for name in SCRIPTS:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// "), name
        assert len(lines) < 200, name
        assert max(map(len, lines)) <= 100, name
        assert "innerHTML" not in "".join(lines), name


def test_what_failed_is_told_with_its_traceback(hostile: tuple[Path, str]) -> None:
    text = hostile[1]
    part = text[text.index('id="failures"') :]
    assert "<b>2</b>" in part
    assert "ValueError: &lt;/script&gt;" in part
    assert "<pre>Traceback" in part


def test_replicates_stand_together_with_the_verdict(tmp_path: Path) -> None:
    grid(tmp_path, {"lr": [1e-4, 1e-3, 1e-2]}, seeds=3)
    text = made(tmp_path)
    part = text[text.index('id="replicates"') : text.index('id="samples"')]
    assert part.count("<tr>") == 4
    assert "<td>winner</td>" in part
    assert part.count("worse (paired)") == 2
    assert "The winner is lr=0.001" in text


def test_adapters_at_other_strengths_stand_in_a_table(tmp_path: Path) -> None:
    """Of the runs that have them, the best first; without any there is no section."""
    plain = write_run(tmp_path / "plain" / "0", {"lr": 1e-3})
    assert "Strengths" not in made(plain.parent)
    for name, gain in (("a", 0.125), ("b", 0.375)):
        measured = [{"strength": s, "loss": 2.0, "gain": gain * s, "kl": s / 8} for s in (0.5, 1.0)]
        write_run(tmp_path / "kl" / name, {"seed": len(name)}, score=2 - gain, strengths=measured)
    text = made(tmp_path / "kl")
    part = text[text.index('id="strengths"') : text.index('id="replicates"')]
    assert part.count("<tr>") == 5
    assert '<th scope="col" class="n">kl</th>' in part
    assert part.index("0.1875") < part.index("0.0625")


def test_many_keys_make_no_crowd(tmp_path: Path) -> None:
    """Ten parameters would be 45 maps; six are 15, and a run's name stays short."""
    keys = [f"optimizer.{name}" for name in ("weight_decay", "beta1", "beta2", "eps", "clip_norm")]
    keys += ["lr", "lora.rank", "lora.dropout", "lora.scale", "batch_size"]
    dice = random.Random(0)
    for n in range(12):
        values = {key: dice.randint(1, 3) for key in keys}
        write_run(tmp_path / str(n), values, score=1 + n)
    data = json.loads(Reader(made(tmp_path)).scripts[0])
    assert len(data["parameters"]) == 10
    assert len(data["maps"]) == 15
    assert data["runs"][0]["label"].endswith("and 2 more")


def test_one_run_alone_is_a_page_too(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    text = made(tmp_path)
    assert "Only one configuration is finished. It has " in text
    assert "Nothing was varied" in text


def test_without_any_finished_run_there_is_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {"lr": 1e-3}, finished=False)
    write_run(tmp_path / "1", {"lr": 2e-3}, finished=False)
    assert "No run is finished and validated yet" in made(tmp_path)


def test_numbers_that_are_none_are_left_out_of_the_data(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", finished=False, steps=3)
    with (folder / "train_log.csv").open("a", encoding="utf-8") as file:
        file.write("4,0.4,nan,inf,,,4000,1600,2.0,,,\n")
    data = json.loads(Reader(made(tmp_path)).scripts[0])
    assert data["runs"][0]["train"]["step"] == [1, 2, 3]
    assert data["runs"][0]["tokens"] == 4000


@pytest.mark.slow
def test_five_hundred_runs(tmp_path: Path) -> None:
    """Written within a minute of computing, in less than 10 MB with all of Plotly."""
    sample = {"prompt": "Who?", "base": "I.", "expected": "Me."}
    for n in range(500):
        values = {"lr": 10 ** (-2 - n % 100 / 50), "lora.rank": 4 << n % 5, "epochs": 1 + n % 3}
        samples = [{**sample, "adapter": f"Run {n}. " * 30}]
        write_run(tmp_path / f"{n}", values, score=1 + n / 500, steps=200, samples=samples)
    begin = time.process_time()
    found = Comparison(gather([tmp_path]))
    told = importance(found.points, found.parameters)
    assert write_page(found, told, tmp_path) == tmp_path / PAGE
    seconds = time.process_time() - begin
    size = (tmp_path / PAGE).stat().st_size
    assert len(found.runs) == 500
    assert told.best
    assert size < 10e6, size
    assert seconds < 60, seconds
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert len(re.findall(r"<tr data-run=", text)) == 500
