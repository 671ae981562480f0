"""`graftlab doctor`: what it finds is so, and what is amiss comes with its cure."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from graftlab.cli.main import main
from graftlab.doctor import devices, packages, places
from graftlab.doctor.finding import Finding


def found(findings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_it_says_what_is_here_and_writes_it(tmp_path, capsys):
    file = tmp_path / "machine.json"
    assert main(["doctor", "network=false", f"out={file}"]) == 0
    rows = {row["subject"]: row for row in json.loads(file.read_text())}
    said = capsys.readouterr().out
    assert f"torch {torch.__version__}" in rows["packages"]["value"]
    assert all(subject in said for subject in rows)
    fp32, bf16 = (float(part.split()[1]) for part in rows["cpu arithmetic"]["value"].split(",")[:2])
    assert fp32 > 0
    assert bf16 > 0
    assert rows["cpu attention"]["value"].startswith("segments")
    assert "W&B" not in rows, "network=false asks nobody"
    assert main(["doctor", "network=false", f"out={file}"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_packages_that_are_missing_or_old_are_named(monkeypatch, capsys):
    wanted = ["torch>=99", "nonesuch>=1", "numpy>=1", 'absent>=2; extra == "later"']
    monkeypatch.setattr(packages, "requires", lambda name: wanted)
    monkeypatch.setattr(packages, "_extras", lambda: {"later", "dev"})
    packages._all.cache_clear()
    try:
        rows = found(packages.check_packages())
        assert rows["torch"].value == f"is {torch.__version__}, and graftlab needs >=99"
        assert rows["torch"].cure == 'pip install "torch>=99"'
        assert rows["nonesuch"].broken
        assert "numpy" not in rows
        assert rows["extras"].value == "none"
        assert "'graftlab[later]'" in rows["extras not here"].value
        assert main(["doctor", "network=false"]) == 2
        err = capsys.readouterr().err
        assert "before this is mended: torch, nonesuch" in err
        assert "Traceback" not in err
    finally:
        packages._all.cache_clear()


def test_bf16_that_is_slower_than_fp32_is_said(monkeypatch):
    from graftlab.training import device, precision

    rates = {torch.float32: 2e12, torch.bfloat16: 1e11}
    monkeypatch.setattr(device, "matrix_peak", lambda device, dtype: rates[dtype])
    monkeypatch.setattr(precision, "has_bf16", lambda device: (True, "the processor"))
    rows = found(devices.check_devices())
    assert rows["cpu arithmetic"].value == "fp32 2.00, bf16 0.10 TFLOP/s, measured"
    assert "precision=fp32" in rows["cpu precision=auto"].cure
    rates[torch.bfloat16] = 3e12
    assert found(devices.check_devices())["cpu precision=auto"].cure is None


def test_a_compiler_that_is_missing_is_one_line(monkeypatch):
    def broken(function):
        raise RuntimeError("No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    (row,) = devices.check_compile()
    assert row.value == "does not work: RuntimeError: No working C++ compiler found"
    assert "compile=off" in row.cure


def test_a_cache_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("GRAFTLAB_CACHE", "/proc/nowhere/cache")
    row = found(places.check_disk())["cache /proc/nowhere/cache"]
    assert row.cure is not None
    monkeypatch.setattr(places, "LITTLE", 0)
    assert found(places.check_disk())["disk here"].cure is None
    monkeypatch.setattr(places, "LITTLE", float("inf"))
    assert "hydra.run.dir" in found(places.check_disk())["disk here"].cure


def test_servers_are_asked_where_they_are_wanted(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        rows = found(places.check_servers())
        assert rows["hub"] == Finding("hub", f"{url} answers")
        assert rows["W&B"].value.startswith("no key")
    rows = found(places.check_servers())
    assert "127.0.0.1 cannot be reached (Connection refused" in rows["hub"].value
    assert "model.path=DIR" in rows["hub"].cure
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found(places.check_servers())["hub"].cure is None


@pytest.mark.parametrize("url", ["http://x:99999", "http://[bad", "nonsense", "ftp://x.org"])
@pytest.mark.parametrize("verb", ["doctor", "train", "sample"])
def test_an_address_of_the_hub_that_is_none_is_told_first(verb, url, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", url)
    assert main([verb]) == 2
    assert f"HF_ENDPOINT={url} is no address" in capsys.readouterr().err


def test_a_host_that_cannot_be_one_is_not_reached():
    assert "cannot be reached" in places._connects(f"http://{'a' * 80}.com")
