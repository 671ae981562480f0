"""Reads offline W&B files: a LevelDB log (32 KiB blocks) of protobuf records, also a torn one."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind: 1 whole, 2 first, 3 middle, 4 last
PREAMBLE = 7  # ":W&B", magic, version


TIMED = ("seconds", "tokens_per_second", "trained_tokens_per_second", "share_of_peak", "samples")
"""Keys left out, as they differ between two files of one run: times, and paths of tables."""


def records(path: Path) -> Iterator[Any]:
    """The protobuf records of one `.wandb` file, up to where it is whole."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), PREAMBLE, b""
    while place + HEADER.size <= len(data):
        if BLOCK - place % BLOCK < HEADER.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        body = data[place + HEADER.size : place + HEADER.size + length]
        if kind == 0 or len(body) < length:
            return
        place += HEADER.size + length
        parts = body if kind in (1, 2) else parts + body
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record


def history(folder: Path, *, killed: bool = False) -> dict[str, dict[int, dict[str, Any]]]:
    """Logged metrics by run id and step, over all files of each run below `folder`.

    Waits for the files to end, as `wait_until_ended` does. Asserts that two files of a run never
    disagree about a metric.
    """
    wait_until_ended(folder, killed=killed)
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.rglob("run-*.wandb")):
        steps = runs.setdefault(path.stem.removeprefix("run-"), {})
        for record in records(path):
            if record.WhichOneof("record_type") != "history":
                continue
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            step = row.pop("_step", record.history.step.num)
            kept = steps.setdefault(int(step), {})
            for key, value in row.items():
                if not key.startswith(("_", *TIMED)):
                    assert kept.get(key, value) == value, (path, step, key)
                    kept[key] = value
    return runs


def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """What a server would know of each run below `folder`, its files uploaded in their order.

    Run id -> tags, group, job_type, name, summary, and the names of its artifacts. Waits for the
    files to end: a run that was finished is written to its end by W&B's service a moment later.
    """
    wait_until_ended(folder)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("run-*.wandb"), key=lambda path: path.stat().st_mtime):
        run = found.setdefault(path.stem.removeprefix("run-"), {"summary": {}, "artifacts": []})
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {
                    "tags": list(record.run.tags),
                    "group": record.run.run_group,
                    "job_type": record.run.job_type,
                    "name": record.run.display_name,
                }
            elif kind == "summary":
                for item in record.summary.update:
                    key = item.key or ".".join(item.nested_key)
                    run["summary"][key] = json.loads(item.value_json)
            elif kind == "artifact":
                run["artifacts"].append(record.artifact.name)
    return found


def wait_until_ended(folder: Path, *, killed: bool = False) -> None:
    """Wait for the service that writes the offline W&B files of finished runs below `folder`.

    With `killed` only the newest file of each run ends: an earlier start was killed.
    """
    files = sorted(folder.rglob("*run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    files = [path for path in files if path.parent.name.startswith("offline-")]
    if killed:
        files = list({path.name: path for path in files}.values())
    deadline = time.monotonic() + 30
    for path in files:
        while not any(record.WhichOneof("record_type") == "exit" for record in records(path)):
            assert time.monotonic() < deadline, f"{path} has no end"
            time.sleep(0.05)
