"""Files of others: nested, bombed, of the wrong kind. Each is named, and nothing dies of it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from graftlab.errors import ConfigError, ModelError
from hostile import Attack

Copy = Callable[[Path], Path]

NESTED = "model: " + "[" * 100_000 + "]" * 100_000
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
DEEP_JSON = "[" * 100_000 + "]" * 100_000
BAD_YAML = {
    "nested": NESTED,
    "bomb": BOMB,
    "python": "model: !!python/object/apply:os.system ['touch marker']\n",
    "mixed keys": "1: a\nb: c\n",
    "not a mapping": "- a\n",
}


@pytest.mark.parametrize("kind", BAD_YAML)
def test_resume_auto_goes_on_without_a_run_that_cannot_be_read(
    attack: Attack, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftlab.tracking.folder import find_runs
    from graftlab.tracking.identity import identity

    attack.write("outputs/theirs/run.yaml", BAD_YAML[kind])
    attack.write("outputs/ours/run.yaml", yaml.safe_dump({"lr": 0.1}))
    found = find_runs(attack.folder / "outputs")
    assert found[identity({"lr": 0.1})].path.name == "ours"
    said = capsys.readouterr().out
    assert "theirs/run.yaml" in said
    assert len(said.splitlines()) == 1
    assert not attack.marker.exists()


def test_a_run_yaml_that_is_a_device_is_left_out(attack: Attack) -> None:
    from graftlab.tracking.folder import find_runs

    (attack.folder / "outputs" / "theirs").mkdir(parents=True)
    os.symlink("/dev/zero", attack.folder / "outputs" / "theirs" / "run.yaml")
    assert find_runs(attack.folder / "outputs") == {}


@pytest.mark.parametrize("kind", ["nested", "bomb", "python", "not a mapping"])
def test_report_names_a_run_that_cannot_be_read(attack: Attack, kind: str) -> None:
    attack.write("outputs/theirs/run.yaml", BAD_YAML[kind])
    attack.write("outputs/ours/run.yaml", yaml.safe_dump({"lr": 0.1}))
    attack.write("outputs/theirs/time_metrics.json", DEEP_JSON)
    attack.write("outputs/theirs/result.json", DEEP_JSON)
    knock = attack.knock("report", "outputs")
    assert "Traceback" not in knock.err
    assert knock.code == 0, knock.err
    assert "run.yaml cannot be read" in " ".join(knock.out.split())
    assert not attack.marker.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", DEEP_JSON),
        ("adapter_config.json", '{"peft_type": '),
        *(("run.yaml", BAD_YAML[kind]) for kind in BAD_YAML),
        ("run.yaml", "model: {choice: hf, path: 5}\n"),
        ("run.yaml", "model: {choice: hf, path: {a: b}}\n"),
        ("run.yaml", "model: [hf]\n"),
        ("tokenizer_config.json", DEEP_JSON),
    ],
)
def test_an_adapter_folder_is_refused_by_name(
    attack: Attack, run_template: Copy, name: str, content: str
) -> None:
    folder = run_template(attack.folder / "theirs" / "adapter")
    (folder / name).write_text(content, encoding="utf-8")
    knock = attack.knock("sample", str(folder), "prompt=Hi", "generation.max_new_tokens=2")
    assert "Traceback" not in knock.err, knock.err[-600:]
    assert knock.code == 2, knock.err
    assert "theirs" in knock.err
    assert not attack.marker.exists()


def test_a_schema_is_read_within_limits(attack: Attack) -> None:
    from graftlab.generation.schema import read_schema

    with pytest.raises(ConfigError, match="nested more than"):
        read_schema(DEEP_JSON)
    attack.write("frame.yaml", NESTED)
    attack.refused(
        *("sample", "model=tiny", "prompt=Hi", "frame=frame.yaml"), saying="nested more than"
    )


def test_a_rewriters_answer_is_read_within_limits() -> None:
    from graftlab.recipes.rewriters.endpoint import Again, Endpoint

    endpoint = Endpoint("http://127.0.0.1:1/v1", key=None, timeout=1.0)
    assert isinstance(endpoint._read(DEEP_JSON.encode()), Again)
    answer = json.dumps({"choices": [{"message": {"content": "yes"}}]})
    assert getattr(endpoint._read(answer.encode()), "text", None) == "yes"


@pytest.mark.parametrize("kind", ["evil:models:X", "tokenizers:X", "tamm:model_repo:X"])
def test_a_model_config_makes_models_alone(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tamm")
    from graftlab.apple.files import read_config

    file = tmp_path / "base-model-config.json"
    file.write_text(json.dumps({"__tamm_type__": "models:X", "a": [{"__tamm_type__": kind}]}))
    with pytest.raises(ModelError, match="no part of a model"):
        read_config(file)


def test_cells_of_runs_csv_are_no_formulas() -> None:
    from graftlab.reports.export import cell

    for text in ("=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "\rx", " =1", "-1+1"):
        assert cell(text) == f"'{text}"
    for text in ("-0.5", "+3", "-1e-3", "a=b", "lr", ""):
        assert cell(text) == text


def test_runs_csv_of_a_hostile_run(attack: Attack) -> None:
    formula = '=HYPERLINK("http://evil.example";"x")'
    for number in (1, 2):
        config = {"name": f"{formula}{number}", "seed": number, "lr": -0.5, "=evil": str(number)}
        attack.write(f"outputs/=run{number}/run.yaml", yaml.safe_dump(config))
    attack.knock("report", "outputs", "out=made")
    with (attack.folder / "made" / "runs.csv").open(encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
