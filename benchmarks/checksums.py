"""What checking a file costs: XXH3-128 as graftlab uses it, beside CRC32, BLAKE2b and SHA-256.

Run as:
    python benchmarks/checksums.py --mebibytes 200
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from graftlab.files.checksums import check_file, write_checksum


def seconds(call: Callable[[], object], *, times: int = 5) -> float:
    """The best of some calls, which read the file from the page cache."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        took.append(time.perf_counter() - begin)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=200)
    size = parser.parse_args().mebibytes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "step-000001.ckpt"
        file.write_bytes(os.urandom(size * 2**20))
        write_checksum(file)
        content = file.read_bytes()
        print(f"{size} MiB, best of five")
        print(f"check_file (XXH3-128)   {seconds(lambda: check_file(file)):.3f} s")
        print(f"read alone              {seconds(file.read_bytes):.3f} s")
        print(f"zlib.crc32, in memory   {seconds(lambda: zlib.crc32(content)):.3f} s")
        print(f"BLAKE2b, in memory      {seconds(lambda: hashlib.blake2b(content).digest()):.3f} s")
        print(f"SHA-256, in memory      {seconds(lambda: hashlib.sha256(content).digest()):.3f} s")


if __name__ == "__main__":
    main()
