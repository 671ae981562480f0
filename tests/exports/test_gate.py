"""The gate: rows of the run, what is measured, what is kept of it, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gated
from afm_adapters import hf_run
from chats import chats
from gated import change_tensors
from graftlab.adapters.lora import Lora
from graftlab.cli.main import main
from graftlab.errors import ModelError
from graftlab.exports.hub import Hub
from graftlab.exports.merged import Merged
from graftlab.exports.parity.gate import _of_numbers, require_as_trained
from graftlab.exports.parity.measure import Measured
from graftlab.exports.parity.record import AS_TRAINED, FILE, REFUSED, UNCHECKED
from graftlab.exports.parity.spec import Bounds, Parity
from graftlab.exports.peft import Peft
from graftlab.exports.source import load
from graftlab.exports.vllm import VLLM
from graftlab.files.checksums import check_folder
from graftlab.models.hf import HFModel
from graftlab.verbs.export import ExportSpec, run
from miniatures import miniature
from trained_runs import trained_run
from training_spec import small_spec

pytestmark = [pytest.mark.filterwarnings(warning) for warning in gated.WARNINGS]
QUICK = ["parity.rows=2", "parity.tokens=4"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with held-out rows in a file of their own."""
    folder = tmp_path_factory.mktemp("made")
    data = {"choice": "jsonl"}
    for name, count in (("train", 9), ("valid", 5)):
        data[name] = str(chats(folder / f"{name}.jsonl", count))
    base = miniature("qwen2", folder / "base")
    return trained_run(folder / "run", base, data={**data, "system_prompt": "Count."})


def spec(adapter: Path, out: Path, *, rows: int = 2, **keys: object) -> ExportSpec:
    parity = Parity(rows=rows, tokens=4)
    return ExportSpec(adapter=str(adapter), target=Merged(), out=str(out), parity=parity, **keys)


def test_it_is_asked_held_out_rows_of_the_run(made: Path, tmp_path: Path) -> None:
    report = gated.gated(Merged(), made, tmp_path / "out", rows=4)
    found = report.measured
    assert found is not None
    assert report.verdict == AS_TRAINED
    assert (found.rows, found.origin, found.why) == (4, "held-out rows of the run", "")
    assert found.same_prompts == 4, "the run's system prompt included"

    def lacking_system(folder: Path) -> None:
        file, loop = folder / "chat_template.jinja", "for message in messages -%}"
        assert loop in file.read_text()
        users = "for message in messages if message['role'] != 'system' -%}"
        file.write_text(file.read_text().replace(loop, users))

    report = gated.gated(Merged(), made, tmp_path / "again", lacking_system)
    assert report.verdict == REFUSED
    assert "2 of 2 prompts have other ids (valid.jsonl:1: token 2 is 'u', in " in report.why


def test_a_split_is_dealt_as_in_training(tmp_path: Path) -> None:
    data = {"choice": "jsonl", "train": str(chats(tmp_path / "rows.jsonl", 30))}
    base = miniature("qwen2", tmp_path / "base")
    made = trained_run(tmp_path / "run", base, data={**data, "valid_fraction": 0.2})
    found = gated.gated(Peft(), made, tmp_path / "out", rows=50).measured
    assert found is not None
    assert found.origin == "held-out rows of the run"
    assert 1 < found.rows < 12, "those held out, not those trained on"


def test_rows_that_are_gone_are_replaced_and_told(tmp_path: Path) -> None:
    data = {"choice": "jsonl", "train": str(tmp_path / "gone.jsonl")}
    made = trained_run(tmp_path / "run", miniature("qwen2", tmp_path / "base"), data=data)
    report = gated.gated(Peft(), made, tmp_path / "out")
    found = report.measured
    assert found is not None
    assert found.origin == "conversations of graftlab's own"
    assert "gone.jsonl" in found.why
    assert "not the run's own rows" in "\n".join(found.shown())
    shared = report.public()
    assert str(tmp_path) in json.dumps(report.found())
    assert str(tmp_path) not in json.dumps(shared.found()) + "".join(shared.shown(Path("PATH")))


def test_the_gain_of_training_is_recovered(tmp_path: Path) -> None:
    """Really trained: a half of the scale loses a good part of what was gained."""
    from graftlab.training.start import run as train

    miniature("qwen2", tmp_path / "base")
    for name, count in (("train.jsonl", 12), ("valid.jsonl", 4)):
        chats(tmp_path / name, count)
    trained = tmp_path / "trained"
    keys = {"lora": Lora(rank=4), "epochs": 8, "lr": 1e-2, "run_dir": str(trained)}
    train(replace(small_spec(tmp_path), **keys))
    report = gated.gated(Merged(), trained, tmp_path / "whole", rows=2, tokens=8)
    found = report.measured
    assert found is not None
    assert report.verdict == AS_TRAINED
    assert found.gain > 0.5, "training taught something"
    assert found.recovered == pytest.approx(1, abs=1e-4)
    assert found.control == pytest.approx(0, abs=1e-4)
    half = gated.gated(Merged(strength=0.5), trained, tmp_path / "half", rows=2, tokens=8)
    assert half.verdict == AS_TRAINED, "what was asked for"

    def halved(folder: Path) -> None:
        name = "model.safetensors"
        (folder / name).write_bytes((tmp_path / "half" / name).read_bytes())

    wrong = gated.gated(
        Merged(), trained, tmp_path / "wrong", halved, rows=4, tokens=16, least=0.9999
    )
    assert wrong.verdict == REFUSED
    assert "at 0.5 times its scale" in wrong.why
    assert "of the adapter's gain is recovered, less than parity.least=0.9999" in wrong.why
    share = wrong.measured.recovered if wrong.measured else None
    assert share is not None
    assert 0.1 < share < 0.98
    enough = gated.gated(
        Merged(), trained, tmp_path / "loose", halved, rows=2, tokens=8, least=0.05
    )
    assert enough.verdict == AS_TRAINED, "parity.least is the user's word"


@pytest.mark.parametrize(("error", "refused"), [(0.006, False), (0.0005, True)])
def test_a_share_within_its_error_is_not_refused(error: float, refused: bool) -> None:
    """As q8_0 on an adapter of three steps: 0.97 of 0.32 nats, on 256 answers."""
    found = Measured(runtime="any", rows=8, origin="rows", positions=256, kl=0.004)
    found.nll_base, found.nll_adapter, found.nll_export = 5.07, 4.75, 4.76
    found.nll_error = error
    assert bool(_of_numbers(found, Bounds(0.98, 0.02, "rounding to q8_0"))) == refused


FAULTS = {
    "dropped": ("B.weight", 0.0, "as the base alone: the adapter is not in it"),
    "scale": ("B.weight", 2.0, "as the adapter at 2 times its scale"),
}


ADAPTERS = [Peft(), *(pytest.param(t, marks=pytest.mark.slow) for t in (VLLM(), Hub(base="a/b")))]


@pytest.mark.parametrize("target", ADAPTERS)
@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_adapters_are_asked_in_plain_peft(
    fault: str, target: Peft | VLLM | Hub, made: Path, tmp_path: Path
) -> None:
    def alter(folder: Path) -> None:
        if fault:
            leaf, factor, _ = FAULTS[fault]
            change_tensors(folder, lambda name, t: t * factor if name.endswith(leaf) else t)

    report = gated.gated(target, made, tmp_path / "out", alter)
    found = report.measured
    assert found is not None
    assert "PEFT" in found.runtime
    assert found.nll_control == pytest.approx(found.nll_base), "the base alone, in PEFT"
    if fault:
        assert report.verdict == REFUSED
        assert FAULTS[fault][2] in report.why
    else:
        assert report.verdict == AS_TRAINED
        assert found.kl < 1e-6


def test_where_replies_end_is_said_of_peft_and_not_refused(made: Path, tmp_path: Path) -> None:
    """Who calls PEFT says where replies end; serve.sh gives vLLM the export's own."""
    base = Path(load(str(made)).base or "")
    (base / "generation_config.json").write_text('{"eos_token_id": 0}')
    try:
        plain = gated.gated(Peft(), made, tmp_path / "peft")
        served = gated.gated(VLLM(), made, tmp_path / "vllm")
    finally:
        (base / "generation_config.json").unlink()
    assert plain.verdict == served.verdict == AS_TRAINED
    assert plain.measured
    assert plain.measured.endless == ["<|im_end|>"]
    assert served.measured
    assert served.measured.endless == []


def test_a_record_is_kept_and_checked_again(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    done = run(spec(made, out))
    assert done is not None
    assert done.report.verdict == AS_TRAINED
    content = json.loads((out / FILE).read_text())
    assert content["target"]["choice"] == "merged"
    assert content["verdict"] == AS_TRAINED
    assert content["adapter"] == str(made / "adapter")
    assert content["found"]["positions"] == done.report.measured.positions
    assert content["found"]["kl"] < 1e-6 < content["found"]["moved"]
    assert content["check"] == f"graftlab export verify={out}"
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {key for line in rows for key in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert set(content["found"]) - {"why"} <= told
    assert check_folder(out), "the record has its checksum, too"
    assert FILE in json.loads((out / "checksums.json").read_text())
    assert main(["export", f"verify={out}", *QUICK]) == 0
    assert "likeliest token" in capfd.readouterr().out
    assert check_folder(out)

    (out / "generation_config.json").write_text('{"eos_token_id": [0]}')
    assert main(["export", f"verify={out}", *QUICK]) == 2
    assert "is damaged" in capfd.readouterr().err
    (out / "checksums.json").unlink()
    assert main(["export", f"verify={out}", *QUICK]) == 2
    told = capfd.readouterr().err
    assert "the stop token is missing" in told
    assert "Traceback" not in told
    assert json.loads((out / FILE).read_text())["verdict"] == REFUSED

    (out / "config.json").write_text("{")
    assert main(["export", f"verify={out}", *QUICK]) == 2
    told = capfd.readouterr().err
    assert "transformers does not load out" in told
    assert "Traceback" not in told

    content["target"]["strength"] = "x"
    (out / FILE).write_text(json.dumps(content))
    assert main(["export", f"verify={out}", *QUICK]) == 2
    assert "is no record of an export: `target.strength` cannot be 'x'." in capfd.readouterr().err


def test_what_does_not_answer_as_trained_is_not_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read back it is what was written; only its answers tell."""
    from graftlab.exports import changes

    right = changes.LowRank._block
    monkeypatch.setattr(changes.LowRank, "_block", lambda self, *args: right(self, *args).flip(0))
    with pytest.raises(ModelError, match="does not answer as it was trained, in transformers"):
        run(spec(made, tmp_path / "out"))
    assert not list(tmp_path.iterdir())
    unseen = run(spec(made, tmp_path / "unseen", rows=0))
    assert unseen is not None
    assert unseen.report.verdict == UNCHECKED
    content = json.loads((tmp_path / "unseen" / FILE).read_text())
    assert (content["verdict"], content["why"]) == (UNCHECKED, "parity.rows=0")


def test_a_card_that_is_shared_has_the_table_and_no_place(made: Path, tmp_path: Path) -> None:
    target = Hub(base="me/base", license="mit")
    parity = Parity(rows=2, tokens=4)
    run(ExportSpec(adapter=str(made), target=target, out=str(tmp_path / "hub"), parity=parity))
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "## As in training?" in text
    assert "recovered gain" in text
    record = (tmp_path / "hub" / FILE).read_text()
    assert str(made) not in text + record
    assert str(tmp_path) not in text + record
    assert check_folder(tmp_path / "hub")
    assert main(["export", f"verify={tmp_path / 'hub'}", *QUICK]) == 2, "of which adapter?"
    assert main(["export", f"verify={tmp_path / 'hub'}", f"adapter={made}", *QUICK]) == 0
    again = (tmp_path / "hub" / "README.md").read_text()
    assert again.count("## As in training?") == 1


def test_without_its_base_an_export_is_stamped(tmp_path: Path) -> None:
    import shutil

    made = hf_run(tmp_path / "made")
    shutil.rmtree(tmp_path / "made" / "qwen2")
    report = gated.gated(Peft(), made, tmp_path / "out")
    assert (report.verdict, report.why) == (UNCHECKED, "its base is not here")
    (line,) = report.shown(tmp_path / "out")
    assert f"graftlab export verify={tmp_path / 'out'}" in line
    require_as_trained(report, Peft())


def test_an_adapter_of_coded_weights_needs_them(made: Path, tmp_path: Path) -> None:
    from graftlab.models.quantization.int8 import Int8

    base = HFModel(path=str(load(str(made)).base), quantization=Int8())
    adapter = replace(load(str(made), base), stored="int8")
    report = Peft().runtime(adapter, tmp_path)
    assert "stored in int8" in getattr(report, "why", "")


def test_kl_is_a_divergence_and_top_tokens_never_exceed_it() -> None:
    from graftlab.exports.parity.measure import divergence
    from graftlab.exports.runtimes.base import Scores

    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(3, 50, generator=generator).log_softmax(-1) for _ in range(2))
    chosen = theirs[:, 0]
    whole = divergence(ours, Scores(chosen, theirs))
    wanted = torch.nn.functional.kl_div(theirs, ours, log_target=True, reduction="sum")
    assert whole == pytest.approx(float(wanted), rel=1e-5)
    seen = []
    for count in (5, 20, 50):
        ids = [row.topk(count).indices.tolist() for row in theirs]
        likely = [{i: float(row[i]) for i in some} for row, some in zip(theirs, ids, strict=True)]
        seen.append(divergence(ours, Scores(chosen, likely=likely)))
    assert seen == sorted(seen)
    assert 0 < seen[0] < whole
    assert seen[-1] == pytest.approx(whole, rel=1e-4)
    assert divergence(theirs, Scores(chosen, theirs)) == pytest.approx(0, abs=1e-9)
