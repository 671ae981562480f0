"""`graftlab tune` from the command line to its files, with real workers on a miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftlab.cli.compose import build, compose
from kept_logging import kept_logging
from knocking import knock
from sweep_runs import small_root

SPACE = ("lr=1e-3,1e-2,1e-1", "lora.rank=2,4", "epochs=2,4")


@pytest.mark.slow
def test_a_tuning_proposes_writes_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven rows to train on and four held out: it also says how little that tells."""
    small_root(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [
        *("model=hf", "model.path=base", "data=jsonl", "data.train=train.jsonl"),
        *("data.valid=valid.jsonl", "packing.max_length=80", "precision=fp32", "logger=none"),
        *("launcher.slots=1", "launcher=joint", "hydra.sweep.dir=out", "tune.share=0.7", *SPACE),
    ]
    with kept_logging():
        first = knock(capsys, "tune", *words)
        assert first.code == 0, first.err
        again = knock(capsys, "tune", *words)
        reported = knock(capsys, "report", "out")
    told = json.loads(Path("out/tune.json").read_text(encoding="utf-8"))
    assert told["trained"]
    assert told["share"] <= 0.7
    assert told["loss"]["middle"] < told["base"]
    assert "over 4 documents: too few" in first.out
    assert "another set of them might choose otherwise" in first.out.replace("\n", " ")
    proposal = first.out[first.out.index("proposed by") : first.out.index("expected regret")]
    assert proposal in again.out
    branches = [
        log for log in Path("out").glob("0*/train.log") if "Trained jointly" in log.read_text()
    ]
    assert branches
    assert reported.code == 0
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert '<section id="tuning">' in page
    experiment = Path("out/experiment/tuned.yaml").read_text(encoding="utf-8")
    assert "# best of 0.001, 0.01, 0.1; the next costs " in experiment
    folder = f"hydra.searchpath=[file://{tmp_path / 'out'}]"
    spec = build(compose("train", [folder, "experiment=tuned", "run_dir=run"]))
    assert str(spec.lora.rank) == told["values"]["lora.rank"]
    assert spec.lr == float(told["values"]["lr"])
