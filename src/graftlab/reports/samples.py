"""`samples.md` read back: the replies of the best adapter, as they were said."""

from __future__ import annotations

from pathlib import Path

WHO = ("prompt", "base", "adapter", "expected")

Sample = dict[str, str]
"""One held-out question, the replies to it, and the answer that was expected."""


def read_samples(path: Path) -> list[Sample]:
    """The samples of the file's first step, which is the one drawn last; [] without a file.

    The file has the newest first; here they come in the order of their questions. Every line of
    a text is quoted, so nothing in a text can be taken for a heading.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    found: list[dict[str, list[str]]] = []
    said: list[str] = []
    step = None
    for line in lines:
        if line.startswith("> "):
            said.append(line[2:])
        elif line.startswith("## "):
            step = step or line
            if line != step:
                break
            found.append({})
        elif line.startswith("**") and line.strip("*") in WHO and found:
            said = found[-1].setdefault(line.strip("*"), [])
    samples = [{who: "\n".join(sample.get(who, [])) for who in WHO} for sample in found]
    newest = {sample["prompt"]: sample for sample in reversed(samples)}
    return list(newest.values())
