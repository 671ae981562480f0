"""`target=hub`: a card that says what the run recorded, and no word of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from afm_adapters import hf_run, logits
from graftlab.adapters.artifact import find_artifact
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.hub import Hub
from graftlab.exports.model_card import PARITY, add_section
from graftlab.exports.source import load
from graftlab.tracking.card import card
from graftlab.tracking.result import Result
from merged_exports import plain_logits
from peft_exports import IDS
from tolerance import assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]

RESULT = Result(
    score=2.5, baseline=3.25, interval=(-0.81, -0.69), valid_documents=60, adapter="/home/me/run",
    steps=12, best_step=9, epochs=1.0, tokens=1960, trained_tokens=837, tokens_per_second=148.0,
    packing_density=0.6, peak_rss_mb=1751.0, trainable_parameters=4884, precision="fp32",
    compiled=False, stopped=None, strengths=[{"strength": 0.5, "loss": 2.8, "gain": 0.45}],
)  # fmt: skip
FACTS = {"training data": "60 documents, hash d6b1940e1c50b4d4"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = hf_run(tmp_path / "made")
    base = str(tmp_path / "made" / "qwen2")
    (made / "adapter" / "card.md").write_text(card(RESULT, base=base, facts=FACTS))
    return made


def exported(run: Path, folder: Path, **keys: Any) -> Path:
    folder.mkdir()
    target, adapter = Hub(**keys), load(str(run))
    target.check(adapter)
    target.write(adapter, folder)
    target.verify(adapter, folder)
    return folder


def front_of(folder: Path) -> dict[str, Any]:
    _, front, _ = (folder / "README.md").read_text().split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def test_the_card_says_what_the_run_recorded(run: Path, tmp_path: Path) -> None:
    keys = {"base": "me/qwen2", "license": "apache-2.0"}
    folder = exported(run, tmp_path / "hub", **keys)
    assert front_of(folder) == {
        "base_model": "me/qwen2",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "tags": ["lora", "graftlab"],
    }
    text = (folder / "README.md").read_text()
    for told in (
        "change: -0.810 to -0.690 (95 % interval, paired), over 60 documents",
        "score: 2.5",
        "| 0.5 | 2.8 | 0.45 |",
        "training data: 60 documents, hash d6b1940e1c50b4d4",
        'base = AutoModelForCausalLM.from_pretrained("me/qwen2")',
        "A LoRA adapter of rank 4 on",
    ):
        assert told in text


@pytest.mark.parametrize("content", ["adapter", "merged"])
def test_no_place_of_this_machine_is_in_it(content: str, run: Path, tmp_path: Path) -> None:
    made = tmp_path / "made" / "qwen2" / "config.json"
    config = json.loads(made.read_text())
    made.write_text(json.dumps({**config, "_name_or_path": str(made.parent)}))
    folder = exported(run, tmp_path / "hub", base="me/qwen2", content=content)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
        assert b"/home/me" not in file.read_bytes(), file.name
    assert not (folder / "run.yaml").exists(), "it names folders"


def test_it_is_what_plain_peft_and_graftlab_load(run: Path, tmp_path: Path) -> None:
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(run, tmp_path / "hub", base="me/qwen2")
    assert PeftConfig.from_pretrained(str(folder)).base_model_name_or_path == "me/qwen2"
    base = AutoModelForCausalLM.from_pretrained(str(tmp_path / "made" / "qwen2"))
    with torch.no_grad():
        answer = PeftModel.from_pretrained(base, str(folder))(input_ids=IDS).logits
    assert_same(answer, logits(run, IDS))
    assert AutoTokenizer.from_pretrained(str(folder)).chat_template
    source, original = (find_artifact(str(f)).require_adapter() for f in (folder, run))
    assert source.base_fingerprint() == original.base_fingerprint() is not None


def test_a_whole_model_can_be_shared(run: Path, tmp_path: Path) -> None:
    folder = exported(run, tmp_path / "hub", content="merged")
    front = front_of(folder)
    assert front["library_name"] == "transformers"
    assert "base_model" not in front, "the base has no id"
    assert "PeftModel" not in (folder / "README.md").read_text()
    assert_same(plain_logits(folder, IDS), logits(run, IDS))


def test_what_is_missing_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give target.base=ORG/NAME"):
        Hub().check(load(str(run)))
    notes = Hub(base="me/qwen2").check(load(str(run)))
    assert any("names no licence" in note for note in notes)
    (run / "adapter" / "card.md").unlink()
    notes = Hub(base="me/qwen2", license="mit").check(load(str(run)))
    assert notes == ["its card tells no scores: there is no card.md of a run beside it"]


def test_a_card_that_names_a_folder_is_not_kept(run: Path, tmp_path: Path) -> None:
    file = run / "adapter" / "card.md"
    file.write_text(file.read_text().replace("hash ", f"of {tmp_path}/made/run/adapter, hash "))
    with pytest.raises(ModelError, match=r"README.md: .* name places on this machine"):
        exported(run, tmp_path / "hub", base="me/qwen2")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"content": "both"}, "target.content=both"),
        ({"base": "/models/qwen2"}, "target.base=/models/qwen2 is no id of the hub"),
        ({"push": "no id"}, "target.push=no id is no id of the hub"),
        ({"license": "other"}, "needs target.license_name and target.license_link"),
    ],
)
def test_keys_are_checked_at_once(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Hub(**keys)


class FakeHub:
    """The hub's client, as far as it is used."""

    def __init__(self, *, public: bool = False, error: str | None = None) -> None:
        self.public, self.error = public, error
        self.calls: list[tuple[str, Any]] = []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append((repo_id, private))

    def repo_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        if self.error is not None:
            raise RuntimeError(self.error)
        self.calls.append((repo_id, sorted(file.name for file in folder_path.iterdir())))
        return SimpleNamespace(commit_url="https://example.org/commit/1")


@pytest.mark.parametrize("private", [True, False])
def test_it_is_pushed_where_it_is_told(
    private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(public=not private)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    (tmp_path / "README.md").write_text("A card.")
    keys: dict[str, Any] = {} if private else {"private": False}
    lines = Hub(push="me/brass", **keys).publish(tmp_path)
    assert lines == ["pushed: https://example.org/commit/1"]
    assert hub.calls == [("me/brass", private), ("me/brass", ["README.md"])]
    assert Hub().publish(tmp_path) == [f"to share it: hf upload --private ORG/NAME {tmp_path}"]
    assert len(hub.calls) == 2, "nothing is pushed that was not asked for"


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (FakeHub(public=True), "it is there and public: target.private=false"),
        (FakeHub(error="403 Forbidden\nand more"), "target.push=me/brass: 403 Forbidden. It was"),
    ],
)
def test_what_cannot_be_pushed_is_kept(
    hub: FakeHub, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    with pytest.raises(ConfigError, match=message) as caught:
        Hub(push="me/brass").publish(tmp_path)
    assert f"lies in {tmp_path}" in str(caught.value)
    assert len(hub.calls) == 1, "nothing was uploaded"


def test_a_token_is_looked_for_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub().check_files()
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        Hub(push="me/brass").check_files()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="needs a token of the hub"):
        Hub(push="me/brass").check_files()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_none")
    Hub(push="me/brass").check_files()


def test_what_people_wrote_into_a_card_stays(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Mine\n\nWords.\n")
    add_section(card, PARITY, ["one"])
    card.write_text(card.read_text() + "\n## My own notes\n\nKeep this.\n")
    add_section(card, PARITY, ["two"])
    text = card.read_text()
    assert text.startswith("# Mine\n\nWords.\n")
    assert "```text\ntwo\n```" in text
    assert "one" not in text
    assert text.endswith("## My own notes\n\nKeep this.\n")
    before = text
    add_section(card, PARITY, ["two"])
    assert card.read_text() == before


def test_a_card_that_was_taken_away_is_not_made_anew(tmp_path: Path) -> None:
    assert Hub().tell(tmp_path, ["a line"]) == []
    assert not list(tmp_path.iterdir())
