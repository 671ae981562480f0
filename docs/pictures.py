"""Make the pictures of README and docs/report.md from real runs.

Run as: make pictures, or python docs/pictures.py [terminal] [report]

`terminal` trains the embedded default in a pseudo-terminal (about two minutes on two idle cores)
and writes what it showed as docs/terminal.svg, by Rich. `report` trains a small sweep (some
minutes) and photographs the page of its report as docs/report.png: it needs Chromium or Chrome on
the PATH. Both need a POSIX system and the `dev` extra. No test runs this. Look at the pictures
before you commit them: losses and times are those of the machine that made them.
"""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where the browser's driver lies
from browser import Browser, chromium

HERE = Path(__file__).parent
ROOT = HERE.parent
COLUMNS = 100
OTHERS = ("Loading weights",)
"""Beginnings of lines that another library draws."""
SWEEP = (
    "-m", "lr=1e-3,5e-3,2e-2", "lora.rank=4,16", "sweep.seeds=3", "launcher=joint",
    "data.limit=96", "max_steps=16", "callbacks.validation.every_steps=4", "logger=none",
)  # fmt: skip
FILTER = "rank=16"
"""Typed into the page, so that half of the runs are left."""
CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\r*\n|\r|\x1b\][^\x07]*\x07")


def in_terminal(words: list[str], folder: str) -> str:
    """What a command writes to a terminal of 100 columns. Ends this script where it fails."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its, close_fds=True
    )
    os.close(its)
    heard = bytearray()
    while True:
        try:
            part = os.read(mine, 1 << 16)
        except OSError:  # Linux says so when the last process has closed its end
            break
        if not part:
            break
        heard += part
    os.close(mine)
    text = heard.decode(errors="replace")
    if process.wait():
        raise SystemExit(f"{' '.join(words)} failed:\n{text[-2000:]}")
    return text


def screen(text: str) -> list[str]:
    """The lines that stay when cursor movements are done: bars are redrawn in place, not repeated.

    Colours (`ESC [ ... m`) stay in the lines.
    """
    lines, at, end = [""], 0, 0
    for control in [*CONTROL.finditer(text), None]:
        start = control.start() if control else len(text)
        lines[at] += text[end:start]
        if control is None:
            break
        end = control.end()
        kind = control.group(2) or control.group()
        if kind == "m":
            lines[at] += control.group()
        elif kind.endswith("\n"):
            at += 1
            lines += [""] * (at == len(lines))
        elif kind == "A":
            at = max(0, at - int(control.group(1) or 1))
        elif kind in ("K", "\r"):
            lines[at] = ""
    return lines


def in_short(lines: list[str]) -> list[str]:
    """Without all samples but the last, and without what is not ours."""
    plain = [Text.from_ansi(line).plain for line in lines]
    ends = [i for i, line in enumerate(plain) if line.startswith("└")]
    change = next(i for i, line in enumerate(plain) if line.startswith("change:"))
    assert len(ends) > 2, "a run ends with a table of losses and at least two samples"
    kept = [*range(change + 1), None, *range(ends[-2] + 1, len(lines))]
    return [
        "..." if i is None else lines[i]
        for i in kept
        if i is None or not plain[i].startswith(OTHERS)
    ]


def terminal() -> None:
    """docs/terminal.svg."""
    with tempfile.TemporaryDirectory() as place:
        text = in_terminal([sys.executable, str(ROOT / "train.py")], place)
        text = text.replace(f"{place}/", "")  # paths as seen from where it ran
    shown = "\n".join(["$ python train.py", *in_short(screen(text))]).rstrip()
    paper = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    paper.print(Text.from_ansi(shown), soft_wrap=True)
    # Without Rich's web font: the picture asks no server for anything.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = paper.export_svg(title="graftlab", theme=DIMMED_MONOKAI, code_format=form)
    written(HERE / "terminal.svg", svg.encode(), most=60_000)


def report() -> None:
    """docs/report.png."""
    if chromium() is None:
        raise SystemExit("docs/report.png needs Chromium or Chrome on the PATH.")
    graftlab = [sys.executable, "-m", "graftlab"]
    with tempfile.TemporaryDirectory() as place:
        sweep = Path(place) / "sweep"
        subprocess.run([*graftlab, "train", *SWEEP, f"hydra.sweep.dir={sweep}"], check=True)
        subprocess.run([*graftlab, "report", str(sweep)], check=True)
        page = Browser(Path(place) / "profile")
        try:
            page.scheme("light")
            page.open(sweep / "report.html")
            picture = photograph(page)
        finally:
            page.close()
    written(HERE / "report.png", picture, most=250_000)


def photograph(page: Browser) -> bytes:
    """The report from its title to the loss curves, filtered to one rank, as PNG."""
    size = {"width": 1160, "height": 1700, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    page.click("#filter")
    page.type(FILTER)
    page.until("document.getElementById('shown').textContent === '9 of 18'")
    page.until("document.querySelectorAll('#curves-chart .trace').length === 9")
    page.run("scrollTo(0, 0)")
    bottom = page.run("document.getElementById('curves').getBoundingClientRect().bottom")
    clip = {"x": 0, "y": 0, "width": size["width"], "height": bottom, "scale": 1}
    return base64.b64decode(page.call("Page.captureScreenshot", clip=clip)["data"])


def written(file: Path, content: bytes, *, most: int) -> None:
    """Refuses a picture that would weigh on every clone."""
    if len(content) > most:
        raise SystemExit(f"{file.name} has {len(content):,} bytes, more than {most:,}.")
    file.write_bytes(content)
    print(f"{file}: {len(content):,} bytes")


def main() -> None:
    makers = {"terminal": terminal, "report": report}
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
