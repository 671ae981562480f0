"""`quantization.cache=true`: codes are read from disk, and are those that are made."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from graftlab.caches import _told
from graftlab.files.checksums import write_checksums
from graftlab.models.hf import HFModel
from graftlab.models.hf_base import HFBase
from graftlab.models.quantization.base import Codes
from graftlab.models.quantization.int8 import Int8
from graftlab.models.quantization.nf4 import NF4
from graftlab.models.quantization.weight import QuantizedWeight
from graftlab.models.weights import file_tensors
from miniatures import flat_batch, miniature

CPU = torch.device("cpu")
CHOICES = [NF4(cache=True), NF4(double=True, cache=True), Int8(cache=True)]
each_choice = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.title)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own."""
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    _told.clear()
    yield tmp_path / "cache"
    _told.clear()


def load(folder: Path, choice: Codes, dtype: torch.dtype = torch.float32) -> HFBase:
    return HFModel(path=str(folder), quantization=choice).load(dtype=dtype, device=CPU)


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("codes-*"))


@pytest.fixture
def no_wide_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, whoever reads a model's own weights fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the wide weights are read")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr("safetensors.safe_open", refuse)


def assert_equal_bases(found: HFBase, wanted: HFBase) -> None:
    assert found.fingerprint == wanted.fingerprint
    assert str(found.model.config) == str(wanted.model.config)
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = (dict(getattr(base.model, kind)()) for base in (found, wanted))
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            mine = ours[name]
            assert type(mine.data) is type(value.data), name
            assert (mine.dtype, mine.shape, mine.device) == (value.dtype, value.shape, value.device)
            assert mine.stride() == value.stride()
            assert not mine.requires_grad
            if isinstance(value.data, QuantizedWeight):
                pairs = zip(mine.data.parts, value.data.parts, strict=True)
                assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
                assert mine.data.scheme == value.data.scheme
            else:
                assert torch.equal(mine, value), name


def test_codes_of_files_that_were_written_to_are_made_anew(tmp_path: Path, cache: Path) -> None:
    """Where the fingerprint, which reads samples of a large tensor, sees no difference: a copy
    that was damaged in between and is mended at the same size and time.
    """
    folder = miniature("qwen2", tmp_path / "base", intermediate_size=1024)
    name, choice = "model.layers.0.mlp.up_proj.weight", Int8(cache=True)
    file = folder / "model.safetensors"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    before = load(folder, choice)
    place = file_tensors(file)[name].offset + 20_000
    data = bytearray(file.read_bytes())
    data[place : place + 4] = struct.pack("<f", 3.0)
    file.write_bytes(data)
    os.utime(file, ns=times)
    after = load(folder, choice)
    assert after.fingerprint == before.fingerprint
    codes = dict(after.model.named_parameters())[name]
    wanted = Int8().quantise(load_file(file)[name], torch.float32)
    assert torch.equal(codes.data.parts[0], wanted.parts[0])
    assert len(kept(cache)) == 1


@each_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_read_is_what_is_made(
    choice: Codes,
    dtype: torch.dtype,
    qwen2_folder: Path,
    cache: Path,
    request: pytest.FixtureRequest,
) -> None:
    made = load(qwen2_folder, choice, dtype)
    (home,) = kept(cache)
    request.getfixturevalue("no_wide_weights")
    read = load(qwen2_folder, choice, dtype)
    assert_equal_bases(read, made)
    batch = flat_batch([7, 11])
    assert torch.equal(read.hidden(batch), made.hidden(batch))
    assert read.own_logits(batch.input_ids).equal(made.own_logits(batch.input_ids))
    stored = sum(tensor.nbytes for tensor in load_file(home / "model.safetensors").values())
    assert (home / "model.safetensors").stat().st_size < stored + 16_000


@pytest.mark.parametrize("kind", ["llama", "gemma3", "phi3", "falcon_h1"])
def test_other_architectures(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Heads of their own, norms that scale by a buffer, fused projections, convolutions."""
    folder = miniature(kind, tmp_path / kind)
    choice = Int8(cache=True, head=kind == "llama")
    made = load(folder, choice)
    request.getfixturevalue("no_wide_weights")
    read = load(folder, choice)
    assert_equal_bases(read, made)
    assert torch.equal(read.hidden(flat_batch([9])), made.hidden(flat_batch([9])))


def test_a_matrix_that_lies_the_other_way(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    made = load(tmp_path / "gpt2", Int8(cache=True))
    request.getfixturevalue("no_wide_weights")
    assert_equal_bases(load(tmp_path / "gpt2", Int8(cache=True)), made)


def test_every_option_and_base_has_its_own(qwen2_folder: Path, tmp_path: Path, cache: Path) -> None:
    for choice in CHOICES:
        load(qwen2_folder, choice)
    load(qwen2_folder, CHOICES[0], torch.bfloat16)
    assert len(kept(cache)) == 4
    other = Path(shutil.copytree(qwen2_folder, tmp_path / "other"))
    load(other, CHOICES[0])
    assert len(kept(cache)) == 4, "the same files in another place"
    tensors = load_file(other / "model.safetensors")
    save_file(
        {k: v + 0.001 for k, v in tensors.items()}, other / "model.safetensors", {"format": "pt"}
    )
    assert load(other, CHOICES[0]).fingerprint != load(qwen2_folder, CHOICES[0]).fingerprint
    assert len(kept(cache)) == 5


def test_nothing_is_kept_unless_asked(qwen2_folder: Path, cache: Path) -> None:
    load(qwen2_folder, Int8())
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another model's"])
def test_a_damaged_one_is_made_anew(
    damage: str, qwen2_folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = load(qwen2_folder, CHOICES[0])
    (home,) = kept(cache)
    file = home / "model.safetensors"
    whole = file.read_bytes()
    if damage == "flipped":
        place = len(whole) // 2
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    elif damage == "cut":
        file.write_bytes(whole[:-1000])
    elif damage == "empty":
        file.unlink()
    else:  # with the right checksums
        save_file({"x": torch.zeros(3)}, file)
        write_checksums(home)
    capsys.readouterr()
    assert_equal_bases(load(qwen2_folder, CHOICES[0]), made)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("!")]
    assert len(told) == 1
    assert "made anew" in told[0]
    assert file.read_bytes() == whole
    assert kept(cache) == [home]
    load(qwen2_folder, CHOICES[0])
    assert not capsys.readouterr().err


def test_one_of_an_older_version_gives_way(qwen2_folder: Path, cache: Path) -> None:
    load(qwen2_folder, CHOICES[0])
    (home,) = kept(cache)
    older = home.with_name(f"{home.name[:-8]}00000000")
    home.rename(older)
    load(qwen2_folder, Int8(cache=True))
    assert older.is_dir(), "of another option"
    load(qwen2_folder, CHOICES[0])
    assert home.is_dir()
    assert not older.exists()


def test_a_disk_that_takes_nothing_is_no_obstacle(
    qwen2_folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file where the folder should be")
    base = load(qwen2_folder, CHOICES[0])
    assert "cannot be written" in capsys.readouterr().err
    assert_equal_bases(base, load(qwen2_folder, NF4()))


def test_of_two_at_once_one_makes_it(
    qwen2_folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load(qwen2_folder, CHOICES[0]), range(2))
    assert_equal_bases(first, second)
    assert capsys.readouterr().err.count("are kept in") == 1
    assert [entry.name for entry in cache.iterdir()] == [kept(cache)[0].name]


SCRIPT = """
import sys, torch
from graftlab.models.hf import HFModel
from graftlab.models.quantization.nf4 import NF4
sys.stdin.read()
spec = HFModel(path=sys.argv[1], quantization=NF4(cache=True))
base = spec.load(dtype=torch.float32, device=torch.device("cpu"))
weight = base.model.model.layers[1].mlp.up_proj.weight
print(base.fingerprint, float(weight.wide().double().sum()))
"""


@pytest.mark.slow
def test_two_processes_at_once(qwen2_folder: Path, cache: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(qwen2_folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    found = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], found
    assert len({said for said, _ in found}) == 1
    assert sum("are kept in" in told for _, told in found) == 1
    assert [entry.name for entry in cache.iterdir()] == [kept(cache)[0].name]


MEASURE = """
import gc, sys, torch
from pathlib import Path
from graftlab.models.hf import HFModel
from graftlab.models.quantization.int8 import Int8

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))

def load(folder):
    spec = HFModel(path=folder, quantization=Int8(cache=True))
    return spec.load(dtype=torch.bfloat16, device=torch.device("cpu"))

load(sys.argv[1])  # imports what loading needs
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
base = load(sys.argv[2])
values = [value.data for value in base.model.parameters()]
stored = sum(part.nbytes for value in values for part in getattr(value, "parts", [value]))
print(stored, status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_reading_takes_no_more_than_what_stays(qwen2_folder: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6}
    folder = miniature("llama", tmp_path / "llama", **sizes)
    for small in (qwen2_folder, folder):
        load(small, Int8(cache=True), torch.bfloat16)
    command = [sys.executable, "-c", MEASURE, str(qwen2_folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    stored, peak = map(int, done.stdout.split())
    assert stored > 90e6
    assert peak < 1.05 * stored
