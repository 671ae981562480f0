"""The verb `export`: every source into every format, refusals before a byte, and whole folders."""

from __future__ import annotations

import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError

from afm_adapters import afm_run, hf_run
from chats import chats
from graftlab.adapters.lora import Lora
from graftlab.apple import checkpoints as toolkit
from graftlab.apple.exports import blob
from graftlab.apple.exports.layout import Layout, layout_of
from graftlab.apple.exports.verify import verify
from graftlab.apple.model import AFMModel
from graftlab.cli.main import main
from graftlab.errors import ConfigError, GraftlabError, ModelError
from graftlab.registry import choices
from graftlab.verbs.export import Exported, ExportSpec, run
from training_spec import small_spec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """assets/ and run/ of Apple's miniature, hf/run/ of a Hugging Face one."""
    pytest.importorskip("tamm")
    folder = tmp_path_factory.mktemp("made")
    afm_run(folder)
    hf_run(folder / "hf")
    return folder


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    fake = Console(file=text, width=120, color_system=None)
    monkeypatch.setattr("graftlab.console.console", lambda: fake)
    return text


OF_THE_VERB = ("name", "model", "verify", "overwrite")


def export(adapter: Path | None, target: str, out: Path, **keys: Any) -> Exported:
    """`keys` are those of the verb and of the target together."""
    own = {key: keys[key] for key in keys.keys() - set(OF_THE_VERB)}
    spec = ExportSpec(
        adapter=str(adapter) if adapter else None,
        target=choices("target")[target](**own),
        out=str(out),
        **{key: keys[key] for key in keys.keys() & set(OF_THE_VERB)},
    )
    spec.check()
    done = run(spec)
    assert isinstance(done, Exported)
    return done


NAMES = ["one.fmadapter", "one.fmadapter.parity.json"]

SOURCES = {
    "run": "run",
    "adapter": "run/adapter",
    "toolkit checkpoint": "run/checkpoints/adapter-final.pt",
    "checkpoint": "run/checkpoints/last.ckpt",
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_package(source, made, tmp_path, screen):
    done = export(made / SOURCES[source], "fmadapter", tmp_path, name="ficino_music")
    assert done.path == tmp_path / "ficino_music.fmadapter"
    assert verify(done.path).broken == []
    reference = export(made / "run", "fmadapter", tmp_path / "again", name="ficino_music")
    for file in ("adapter_weights.bin", "metadata.json"):
        assert (done.path / file).read_bytes() == (reference.path / file).read_bytes()


def test_it_says_what_was_written(made, tmp_path, screen):
    done = export(made / "run", "fmadapter", tmp_path, name="ficino_music")
    text = screen.getvalue()
    assert f"{done.path}: {done.num_bytes:,} bytes" in text
    assert "adapter_weights.bin" in text
    assert "identifier fmadapter-ficino_music-9799725" in text
    assert "48 tensors read back equal" in text
    assert "OS 26.x only" in text
    assert "not on a device" in text
    assert "rank 4: only 32 is known to load" in text
    assert done.num_bytes == sum(f.stat().st_size for f in done.path.iterdir())


def test_metadata_is_what_was_asked_for(made, tmp_path, screen):
    done = export(
        made / "run", "fmadapter", tmp_path,
        name="one", signature="ab" * 20, author="Marsilio", description="It sings, softly.",
    )  # fmt: skip
    content = json.loads((done.path / "metadata.json").read_text())
    assert content["adapterIdentifier"] == "fmadapter-one-abababa"
    assert (content["author"], content["description"]) == ("Marsilio", "It sings, softly.")


def test_a_checkpoint_on_its_own_needs_the_model_only_for_its_heads(made, tmp_path, screen):
    lonely = tmp_path / "adapter-epoch2.pt"
    shutil.copyfile(made / "run" / "checkpoints" / "adapter-final.pt", lonely)
    with pytest.raises(ModelError, match="how many heads there are: give the model"):
        export(lonely, "fmadapter", tmp_path / "out", name="one")
    assert not (tmp_path / "out").exists()
    model = AFMModel(path=str(made / "assets"))
    done = export(lonely, "fmadapter", tmp_path / "out", name="one", model=model)
    reference = export(made / "run", "fmadapter", tmp_path / "again", name="one")
    weights = "adapter_weights.bin"
    assert (done.path / weights).read_bytes() == (reference.path / weights).read_bytes()


def test_one_of_apples_width_needs_no_model_at_all(tmp_path, screen):
    state = {slot.name: torch.full(slot.shape, 0.01) for slot in Layout(rank=1).slots()}
    toolkit.write(state, tmp_path / "adapter-final.pt")
    done = export(tmp_path / "adapter-final.pt", "fmadapter", tmp_path, name="thin")
    assert len(blob.read(done.path / "adapter_weights.bin")) == 700
    assert any("rank 1: only 32" in note for note in done.notes)


def test_an_alpha_of_its_own_is_told(tmp_path, screen):
    pytest.importorskip("tamm")
    done = export(afm_run(tmp_path, alpha=8.0), "fmadapter", tmp_path, name="loud")
    assert any("every B is multiplied by 4" in note for note in done.notes)


@pytest.mark.parametrize("target", ["peft", "mlx"])
@pytest.mark.parametrize("source", ["run", "run/checkpoints/adapter-final.pt", "hf/run"])
def test_other_formats_are_the_folder_out_names(target, source, made, tmp_path, screen):
    done = export(made / source, target, tmp_path / "out")
    assert done.path == tmp_path / "out"
    assert (done.path / "adapter_config.json").is_file()
    assert any("read back equal" in fact for fact in done.facts)
    named = export(made / source, target, tmp_path, name="my-adapter")
    assert named.path == tmp_path / "my-adapter"


@pytest.mark.parametrize("target", ["peft", "merged"])
def test_ranks_of_their_own_are_told(target, tmp_path, screen):
    run_folder = hf_run(tmp_path / "made", rank_pattern={"q_proj": 2})
    export(run_folder, target, tmp_path / "out")
    assert "28 tensors, ranks 2, 4" in screen.getvalue()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an HF adapter for Apple": (
        {"adapter": "hf/run", "target": "fmadapter", "name": "one"},
        "target=fmadapter is for adapters of Apple's foundation model alone",
    ),
    "a merge of Apple's model": (
        {"target": "merged"},
        "For its base there are fmadapter, mlx, peft",
    ),
    "a type that is none": ({"target": "merged", "dtype": "int8"}, "target.dtype=int8"),
    "a hyphen": ({"name": "my-adapter", "target": "fmadapter"}, "such as name=my_adapter"),
    "no name": ({"target": "fmadapter"}, "target=fmadapter needs a name"),
    "a short signature": (
        {"target": "fmadapter", "name": "a", "signature": "9799725"},
        "40 lowercase hexadecimal digits",
    ),
    "a missing adapter": ({"adapter": "rnu", "target": "peft"}, "Did you mean `run`"),
    "a path for a name": ({"name": "../one"}, "name=../one is a path"),
    "the folder above for a name": ({"name": ".."}, r"name=\.\. is a path"),
    "an empty name": ({"name": ""}, "name= is a path"),
    "two things at once": ({"verify": "one.fmadapter"}, "leave target and out away"),
    "a missing draft": (
        {"target": "fmadapter", "name": "a", "draft": "none"},
        "target.draft=none: there is no such file",
    ),
    "nothing": ({"adapter": None}, "or verify=PATH to check an export"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(case, made, tmp_path, screen):
    changes, message = REFUSED[case]
    keys = {"adapter": "run", "target": "peft", **changes}
    if keys["adapter"] is not None:
        keys["adapter"] = made / keys["adapter"]
    with pytest.raises(GraftlabError, match=message):
        export(out=tmp_path / "out", **keys)
    assert not list(tmp_path.iterdir())


def test_an_adapter_on_fewer_linears_cannot_be_a_package(tmp_path, screen):
    pytest.importorskip("tamm")
    made = afm_run(tmp_path / "made", targets=["q_proj", "v_proj"])
    with pytest.raises(ModelError, match="does not adapt all linears .* lora=afm-r32"):
        export(made, "fmadapter", tmp_path / "out", name="one")
    assert not (tmp_path / "out").exists()
    export(made, "peft", tmp_path / "out")


def test_a_value_too_large_leaves_nothing(made, tmp_path, screen):
    state = toolkit.read(made / "run" / "checkpoints" / "adapter-final.pt")
    name = list(state)[5]
    state[name] = state[name].clone()
    state[name][0, 0] = 1e6
    toolkit.write(state, tmp_path / "big.pt")
    model = AFMModel(path=str(made / "assets"))
    with pytest.raises(ModelError, match=f"{name} has values up to 1e\\+06"):
        export(tmp_path / "big.pt", "fmadapter", tmp_path / "out", name="one", model=model)
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_only_when_told(made, tmp_path, screen):
    done = export(made / "run", "fmadapter", tmp_path, name="one", author="first")
    with pytest.raises(ConfigError, match="is there already: overwrite=true replaces it"):
        export(made / "run", "fmadapter", tmp_path, name="one")
    export(made / "run", "fmadapter", tmp_path, name="one", author="second", overwrite=True)
    assert json.loads((done.path / "metadata.json").read_text())["author"] == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


@pytest.mark.parametrize("out", ["", ".", "/", "~"])
def test_folders_of_everybody_are_not_exports(out, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is no folder of its own"):
        run(ExportSpec(adapter="RUN", target=choices("target")["peft"](), out=out, overwrite=True))


def test_an_export_does_not_replace_what_it_is_made_of(tmp_path, screen):
    run = hf_run(tmp_path)
    base = tmp_path / "qwen2"
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    for out in (base, tmp_path / "x" / ".." / "qwen2", run / "adapter"):
        with pytest.raises(ConfigError, match="is what is exported: take another out="):
            export(run, "merged", out, overwrite=True)
    assert {file.name: file.read_bytes() for file in base.iterdir()} == before


@pytest.mark.parametrize("target", ["fmadapter", "peft", "mlx"])
def test_a_full_disk_leaves_nothing(target, made, tmp_path, screen, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_in_rust(*args: object, **kwargs: object) -> None:
        told = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(told)

    monkeypatch.setattr("graftlab.apple.exports.blob.write", full)
    monkeypatch.setattr("safetensors.torch.save_file", full_in_rust)
    with pytest.raises(ConfigError, match="written: No space left on device"):
        export(made / "run", target, tmp_path / "out" / "deep", name="one")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(made, tmp_path, screen, monkeypatch):
    done = export(made / "run", "fmadapter", tmp_path, name="one", author="first")

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("graftlab.files.building.publish", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        export(made / "run", "fmadapter", tmp_path, name="one", author="second", overwrite=True)
    assert json.loads((done.path / "metadata.json").read_text())["author"] == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_what_cannot_be_read_back_is_not_kept(made, tmp_path, screen, monkeypatch):
    """A disk that loses bits: the export is compared before it gets its name."""
    write = blob.write

    def lossy(file: Any, arrays: Any) -> Any:
        records = write(file, arrays)
        file.seek(records[3].offset)
        file.write(b"\x00\x01")
        return records

    monkeypatch.setattr("graftlab.apple.exports.blob.write", lossy)
    with pytest.raises(ModelError, match="was not read back as it was written"):
        export(made / "run", "fmadapter", tmp_path / "out", name="one")
    assert not (tmp_path / "out").exists()


def test_a_broken_package_is_told_rule_by_rule(made, tmp_path, screen):
    done = export(made / "run", "fmadapter", tmp_path, name="one")
    (done.path / "draft.mil").touch()
    with pytest.raises(ModelError, match="draft pair: draft.mil without draft_weights.bin"):
        run(ExportSpec(verify=str(done.path)))
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        ExportSpec(verify=str(tmp_path / "none")).check()


def test_from_the_command_line(made, tmp_path, capfd):
    """A positional run, text with commas, verification, and exit codes."""
    lonely = tmp_path / "adapter-epoch2.pt"
    shutil.copyfile(made / "run" / "checkpoints" / "adapter-final.pt", lonely)
    common = [
        "target=fmadapter",
        "name=one",
        f"out={tmp_path}",
        "target.description=So, (twice)",
    ]
    model = ["model=afm-3b", f"model.path={made / 'assets'}"]
    assert main(["export", str(lonely), *common, *model]) == 0
    package = tmp_path / "one.fmadapter"
    assert json.loads((package / "metadata.json").read_text())["description"] == "So, (twice)"
    assert main(["export", f"verify={package}"]) == 0
    (package / "metadata.json").unlink()
    assert main(["export", f"verify={package}"]) == 2
    assert "files: metadata.json is missing" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["target=peft", f"target.signature={'ab' * 20}"],
            "`target.signature` is not a key of target=peft; it belongs to target=fmadapter.",
        ),
        (
            ["target=onnx"],
            "target=onnx is not one of fmadapter, gguf, gguf-lora, hub, merged, mlpackage, mlx,",
        ),
        (["target=mlx", "target.with_bas=1"], "Did you mean `target.with_base`?"),
        (["target.bits=6"], "|hub|merged|mlpackage|mlx|ollama|peft|vllm first"),
        (["signature=a"], "Did you mean `target.signature`?"),
    ],
)
def test_a_key_of_another_target_is_refused(words, message, tmp_path, capfd):
    assert main(["export", "adapter=run", f"out={tmp_path}", "name=one", *words]) == 2
    assert message in capfd.readouterr().err


def test_a_run_that_was_trained_goes_everywhere(afm_folder, tmp_path, screen):
    """Train a few steps on Apple's miniature, then export the run and the toolkit's checkpoint."""
    from graftlab.training.start import run as train

    for name, count in (("train.jsonl", 11), ("valid.jsonl", 4)):
        chats(tmp_path / name, count)
    model = AFMModel(path=str(afm_folder), template="chatml")
    lora = Lora(rank=4, alpha=2, targets="all-linear")
    trained = tmp_path / "trained"
    train(replace(small_spec(tmp_path), model=model, lora=lora, epochs=1, run_dir=str(trained)))
    package = export(trained, "fmadapter", tmp_path / "out", name="one").path
    assert verify(package).notes == ["rank 4: only 32 is known to load on a device"], (
        "trained, so that not every B is zero"
    )
    final = trained / "checkpoints" / "adapter-final.pt"
    again = export(final, "fmadapter", tmp_path / "again", name="one").path
    kept = toolkit.read(final)
    assert [slot.name for slot in layout_of(kept, heads=4).slots()] != sorted(kept)
    assert blob.read(again / "adapter_weights.bin") == blob.read(package / "adapter_weights.bin")
    for target in ("peft", "mlx"):
        export(trained, target, tmp_path / target)
