"""`verify`: every rule of a `.fmadapter` is broken here once, and named."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from afm_adapters import MINI, REAL, random_state
from graftlab.apple.exports import blob
from graftlab.apple.exports import package as fmadapter
from graftlab.apple.exports.package import Metadata
from graftlab.apple.exports.verify import verify

PROGRAM = """program(1.3)
{
    func main<ios18>(tensor<int32, [1, 8]> ids) {
        tensor<fp16, [4, 8]> w = const()[name = string("w"), val = tensor<fp16, [4, 8]>(BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64)))];
    } -> (w);
}
"""  # noqa: E501


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "ficino_music.fmadapter"
    folder.mkdir()
    metadata = Metadata("ficino_music", rank=4)
    fmadapter.write(folder, random_state(), layout=MINI, metadata=metadata, alpha=2.0)
    (folder / "draft.mil").write_text(PROGRAM, encoding="utf-8")
    with (folder / "draft_weights.bin").open("wb") as file:
        blob.write(file, [np.ones((4, 8), np.float16)])
    return folder


def edit(**values):
    """Change keys of metadata.json; None takes one away."""

    def change(folder: Path) -> Path:
        file = folder / "metadata.json"
        content = json.loads(file.read_text()) | values
        kept = {key: value for key, value in sorted(content.items()) if value is not None}
        file.write_text(json.dumps(kept))
        return folder

    return change


def unsorted(folder: Path) -> Path:
    file = folder / "metadata.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(sorted(content.items(), reverse=True))))
    return folder


def text(name: str, content: str):
    def change(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder

    return change


def without(*names: str):
    def change(folder: Path) -> Path:
        for name in names:
            (folder / name).unlink()
        return folder

    return change


def renamed(name: str):
    return lambda folder: folder.rename(folder.with_name(name))


def rewritten(make):
    """Other tensors in adapter_weights.bin."""

    def change(folder: Path) -> Path:
        file = folder / "adapter_weights.bin"
        arrays = [blob.load(file, record).copy() for record in blob.read(file)]
        with file.open("wb") as stream:
            blob.write(stream, make(arrays))
        return folder

    return change


def patched(name: str, place: int, pattern: str, value: int):
    def change(folder: Path) -> Path:
        file = folder / name
        content = bytearray(file.read_bytes())
        struct.pack_into(pattern, content, place, value)
        file.write_bytes(content)
        return folder

    return change


def infinite(arrays):
    arrays[5][3] = np.inf
    return arrays


BREAKS = {
    "a file": (lambda folder: folder / "metadata.json", "folder"),
    "another ending": (renamed("ficino_music.bundle"), "folder"),
    "a hyphen": (renamed("ficino-music.fmadapter"), "name"),
    "no weights": (without("adapter_weights.bin"), "files"),
    "no metadata": (without("metadata.json"), "files"),
    "a stranger": (text("notes.txt", "hello"), "files"),
    "half a draft": (without("draft.mil"), "draft pair"),
    "the other half": (without("draft_weights.bin"), "draft pair"),
    "no JSON": (text("metadata.json", "{"), "metadata"),
    "a list": (text("metadata.json", "[]"), "metadata"),
    "a key too few": (edit(license=None), "metadata keys"),
    "a key too many": (edit(alpha=16), "metadata keys"),
    "a text for a number": (edit(loraRank="4"), "metadata keys"),
    "a truth for a number": (edit(loraRank=True), "metadata keys"),
    "unsorted": (unsorted, "metadata order"),
    "a short signature": (
        edit(baseModelSignature="9799725", adapterIdentifier="fmadapter-ficino_music-9799725"),
        "signature",
    ),
    "capitals in it": (edit(baseModelSignature="9799725" + "F" * 33), "signature"),
    "another identifier": (edit(adapterIdentifier="fmadapter-ficino-9799725"), "identifier"),
    "another name": (renamed("other.fmadapter"), "identifier"),
    "no draft tokens": (edit(speculativeDecodingDraftTokenCount=0), "metadata values"),
    "an impossible rank": (edit(loraRank=7), "layout"),
    "a tensor too few": (rewritten(lambda arrays: arrays[:-1]), "layout"),
    "another order": (rewritten(lambda arrays: arrays[::-1]), "layout"),
    "infinity": (rewritten(infinite), "finite"),
    "another dtype": (patched("adapter_weights.bin", 68, "<I", 5), "fp16"),
    "another container": (text("adapter_weights.bin", "PK" * 100), "blob version"),
    "a lost record": (patched("adapter_weights.bin", 64, "<I", 0), "blob record"),
    "a draft cut short": (text("draft_weights.bin", "short"), "draft blob header"),
    "a draft of prose": (text("draft.mil", "hello"), "draft program"),
    "a draft that points elsewhere": (
        text("draft.mil", PROGRAM.replace("uint64(64)", "uint64(192)")),
        "draft offsets",
    ),
}


def test_a_whole_package_breaks_no_rule(package):
    verdict = verify(package)
    assert verdict.broken == []
    assert verdict.identifier == "fmadapter-ficino_music-9799725"
    assert verdict.records == 48
    assert verdict.has_draft
    assert verdict.layout is not None
    assert (verdict.layout.layers, verdict.layout.reuse) == (4, 2)
    assert any("only 32 is known" in note for note in verdict.notes)


def test_one_without_a_draft_breaks_none_either(package):
    verdict = verify(without("draft.mil", "draft_weights.bin")(package))
    assert verdict.broken == []
    assert not verdict.has_draft


@pytest.mark.parametrize("case", BREAKS)
def test_the_broken_rule_is_named(case, package):
    change, rule = BREAKS[case]
    broken = verify(change(package)).broken
    assert rule in {problem.rule for problem in broken}, broken
    assert all(problem.message.endswith((".", "?")) for problem in broken)


def test_a_break_is_told_once_and_all_of_them_at_once(package):
    edit(license=None)(package)
    (package / "notes.txt").touch()
    assert sorted(p.rule for p in verify(package).broken) == ["files", "metadata keys"]


def test_an_untrained_adapter_is_whole_but_noted(package):
    def zero_b(arrays):
        return [a * 0 if place % 2 else a for place, a in enumerate(arrays)]

    verdict = verify(rewritten(zero_b)(package))
    assert verdict.broken == []
    assert any("every B is zero" in note for note in verdict.notes)


def test_a_rank_that_is_not_that_of_the_weights_is_named(tmp_path):
    """Sizes alone fit a model half as wide at twice the rank; Apple's width is known."""
    layout = replace(REAL, rank=2)
    state = {slot.name: torch.zeros(slot.shape) for slot in layout.slots()}
    folder = tmp_path / "wide.fmadapter"
    folder.mkdir()
    fmadapter.write(folder, state, layout=layout, metadata=Metadata("wide", rank=2), alpha=1)
    assert verify(folder).broken == []
    broken = verify(edit(loraRank=4)(folder)).broken
    assert [(p.rule, p.message) for p in broken] == [
        ("rank", "loraRank is 4, and the weights are of rank 2.")
    ]
