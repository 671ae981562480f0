"""An export that is there, compared with training anew: `graftlab export verify=PATH`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError, ModelError
from graftlab.exports.parity.gate import gate, require_as_trained
from graftlab.exports.parity.record import FILE, file_of, keep, read
from graftlab.exports.source import load
from graftlab.files.checksums import DamagedError, check_folder

if TYPE_CHECKING:
    from graftlab.exports.parity.spec import Parity
    from graftlab.models.base import ModelSpec


def verify(
    path: Path, spec: Parity, *, adapter: str | None, model: ModelSpec | None
) -> Iterator[str]:
    """Lines for people; the record is written anew, also where the export fails.

    `adapter` is needed where the record does not say it. Raises ConfigError where it is not known,
    and ModelError for a damaged export and for one that does not answer as it was trained.
    """
    file = file_of(path)
    assert file is not None, "its caller looks"
    target, named = read(file)
    if (wanted := adapter or named) is None:
        raise ConfigError(f"{file} does not say of which adapter it is: give adapter=RUN.")
    if path.is_dir():
        try:
            check_folder(path, without=[FILE])
        except DamagedError as error:
            raise ModelError(f"{path} is damaged: {error}.") from error
    trained = load(wanted, model)
    report = gate(target, trained, path, spec)
    yield from report.shown(path)
    inside = file.parent == path
    keep(report, target, trained.path, place=path, folder=path if inside else None)
    require_as_trained(report, target)
