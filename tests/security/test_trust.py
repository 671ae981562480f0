"""No folder of others runs code: trust is typed on the command line, for this call."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hostile import Attack

Copy = Callable[[Path], Path]


@pytest.fixture
def hostile(attack: Attack, run_template: Copy) -> Path:
    """An adapter folder that claims trust and brings a tokenizer with code of its own."""
    folder = run_template(attack.folder / "stranger" / "adapter")
    attack.add_code(folder)
    attack.distrust(folder)
    return folder.parent


@pytest.fixture
def coded_base(attack: Attack, run_template: Copy) -> Path:
    """An adapter whose run.yaml claims trust in a base with code of its own."""
    base = attack.folder / "base"
    shutil.copytree(attack.model, base)
    attack.add_code(base, model=True, tokenizer=False)
    run = run_template(attack.folder / "stranger" / "adapter").parent
    attack.distrust(run)
    file = run / "adapter" / "run.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    config["model"]["path"] = str(base)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return run


def test_sample_runs_no_tokenizer_of_an_adapter(attack: Attack, hostile: Path) -> None:
    attack.refused("sample", str(hostile), "prompt=Hi", saying="auto_map in tokenizer_config.json")


def test_sample_runs_no_base_that_an_adapter_trusts(attack: Attack, coded_base: Path) -> None:
    attack.refused("sample", str(coded_base), "prompt=Hi", saying="model.trust_remote_code=true")


def test_a_draft_runs_no_code(attack: Attack, hostile: Path) -> None:
    base = ["model=hf", f"model.path={attack.model}"]
    attack.refused("sample", *base, "prompt=Hi", f"draft={hostile}", saying="auto_map")


def test_a_drafts_base_runs_no_code(attack: Attack, coded_base: Path) -> None:
    base = ["model=hf", f"model.path={attack.model}"]
    attack.refused("sample", *base, "prompt=Hi", f"draft={coded_base}", saying="auto_map")


@pytest.mark.parametrize("kind", ["hostile", "coded_base"])
def test_a_teacher_runs_no_code(attack: Attack, kind: str, request: pytest.FixtureRequest) -> None:
    teacher = request.getfixturevalue(kind)
    student = ["model=hf", f"model.path={attack.model}", "data=jsonl", "logger=none"]
    data = [f"data.train={attack.chats()}", "data.valid_fraction=0"]
    distil = ["objective=distill", f"objective.teacher={teacher}"]
    attack.refused("train", *student, *data, *distil, saying="auto_map")


@pytest.mark.parametrize("kind", ["hostile", "coded_base"])
def test_a_draft_is_made_without_code(
    attack: Attack, kind: str, request: pytest.FixtureRequest
) -> None:
    pattern = request.getfixturevalue(kind)
    data = ["data=jsonl", f"data.train={attack.chats()}", "logger=none", "data.valid_fraction=0"]
    made = ["model=draft", f"model.of={pattern}"]
    knock = attack.knock("train", *made, *data, "lora=none")
    assert knock.code == 2, knock.err
    assert not attack.marker.exists()


def test_lora_from_starts_at_the_weights_alone(attack: Attack, hostile: Path) -> None:
    knock = attack.knock(
        "train",
        *("model=hf", f"model.path={attack.model}", "data=jsonl", f"data.train={attack.chats()}"),
        *("data.valid_fraction=0", "logger=none", "max_steps=1", "callbacks=quiet"),
        *("lora.rank=2", f"lora.from={hostile}", "hydra.run.dir=run"),
    )
    assert not attack.marker.exists()
    assert knock.code == 0, knock.err


def test_export_runs_no_code(attack: Attack, hostile: Path) -> None:
    knock = attack.knock("export", str(hostile), "target=peft", "out=exported")
    assert not attack.marker.exists()
    assert knock.code in (0, 2), knock.err


def test_a_merge_runs_no_code(attack: Attack, coded_base: Path) -> None:
    knock = attack.knock("export", str(coded_base), "target=merged", "out=exported")
    assert not attack.marker.exists()
    assert knock.code == 2, knock.err


def test_export_of_a_whole_model_runs_no_code(attack: Attack, coded_base: Path) -> None:
    base = attack.folder / "base"
    knock = attack.knock("export", str(base), "target=mlpackage", "out=exported")
    assert not attack.marker.exists()
    assert knock.code == 2, knock.err


def test_a_rewriter_runs_no_code(attack: Attack, hostile: Path) -> None:
    from graftlab.errors import ModelError
    from graftlab.recipes.rewriters.local import LocalRewriter

    rewriter = LocalRewriter(adapter=str(hostile))
    with pytest.raises(ModelError, match="auto_map"), rewriter.opened():
        pass
    assert not attack.marker.exists()


def test_a_models_own_code_runs_when_the_command_line_says_so(
    attack: Attack, coded_base: Path
) -> None:
    base = ["model=hf", f"model.path={attack.folder / 'base'}"]
    quick = ["prompt=Hi", "generation.max_new_tokens=2", "compare=false"]
    attack.refused("sample", *base, *quick, saying="auto_map in config.json")
    knock = attack.knock("sample", *base, *quick, "model.trust_remote_code=true")
    assert knock.code == 0, knock.err
    assert attack.marker.read_text(encoding="utf-8") == "ran"


def test_a_trusted_tokenizer_is_taken_from_the_base(attack: Attack, hostile: Path) -> None:
    """The copy beside the adapter is not what the user has read."""
    from graftlab.models.hf import HFModel

    base = attack.folder / "base"
    shutil.copytree(attack.model, base)
    attack.add_code(base)
    (base / "evil.py").write_text(
        (base / "evil.py").read_text(encoding="utf-8").replace('"ran"', '"of the base"'),
        encoding="utf-8",
    )
    spec = HFModel(path=str(base), trust_remote_code=True)
    assert spec.load_tokenizer(hostile / "adapter").template
    assert attack.marker.read_text(encoding="utf-8") == "of the base"


def test_resuming_asks_for_trust_again(attack: Attack, coded_base: Path) -> None:
    """Trust is no part of a run's identity: without it, the key is named."""
    from graftlab.models.hf import HFModel
    from graftlab.registry import dump
    from graftlab.tracking.identity import identity

    path = str(attack.folder / "base")
    trusted = dump(HFModel(path=path, trust_remote_code=True))
    plain = dump(HFModel(path=path))
    assert identity({"model": trusted}) == identity({"model": plain})
    line = ["model=hf", f"model.path={path}", "data=jsonl", f"data.train={attack.chats()}"]
    attack.refused("train", *line, "resume=auto", saying="model.trust_remote_code=true")


def test_a_ledger_gives_no_trust(attack: Attack) -> None:
    """A job that is known is trained as this command line says, not as the ledger says."""
    from graftlab.sweeps.jobs import NewJob
    from graftlab.sweeps.ledger import Ledger

    ledger = Ledger(attack.folder / "sweep")
    ledger.create()
    draft = {"identity": "a", "label": "x", "swept": {}}
    ledger.add([NewJob(**draft, spec={"model": {"trust_remote_code": True}})], launch="theirs")
    ledger.add([NewJob(**draft, spec={"model": {"trust_remote_code": False}})], launch="ours")
    assert ledger.spec(0) == {"model": {"trust_remote_code": False}}
