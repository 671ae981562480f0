"""The verb `doctor`: what this machine can do for training, and what stands in the way.

Run as: graftlab doctor
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError

if TYPE_CHECKING:
    from graftlab.doctor.finding import Finding


@dataclass(kw_only=True, slots=True)
class DoctorSpec:
    """`graftlab doctor`."""

    network: bool = True
    """Ask whether W&B and the hub answer; takes up to eight seconds where they do not."""
    out: str | None = None
    """A JSON file for what was found, to go with a bug report."""

    def check(self) -> None:
        """Raise ConfigError where `out` is there already."""
        if self.out is not None and Path(self.out).expanduser().exists():
            raise ConfigError(f"out={self.out} is there already: give another name.")


def run(spec: DoctorSpec) -> None:
    """Look at everything, show it, and raise ConfigError where training cannot work."""
    from graftlab.console import console, new_table

    findings = list(_found(spec))
    table = new_table("this machine", ("", "found"), left=("", "found"), box=None)
    for finding in findings:
        table.add_row(finding.subject, finding.value)
    console().print(table)
    _tell_cures(findings)
    if spec.out is not None:
        _write(Path(spec.out).expanduser(), findings)
    if broken := [finding.subject for finding in findings if finding.broken]:
        raise ConfigError(f"graftlab does not work before this is mended: {', '.join(broken)}.")


def _found(spec: DoctorSpec) -> Iterator[Finding]:
    from graftlab.doctor.devices import check_bitsandbytes, check_compile, check_devices
    from graftlab.doctor.packages import check_packages
    from graftlab.doctor.places import check_disk, check_servers
    from graftlab.progress import Progress

    checks = [check_packages, check_devices, check_compile, check_bitsandbytes, check_disk]
    checks += [check_servers] if spec.network else []
    with Progress("looking", total=len(checks)) as progress:
        for check in checks:
            yield from check()
            progress.advance()


def _tell_cures(findings: list[Finding]) -> None:
    from graftlab.console import say

    amiss = [finding for finding in findings if finding.cure is not None]
    for finding in amiss:
        say(f"! {finding.subject}: {finding.value}\n  {finding.cure}")
    if not amiss:
        say("nothing is amiss")


def _write(file: Path, findings: list[Finding]) -> None:
    import json

    from graftlab.files.ownership import writing_to
    from graftlab.files.writing import write_atomic

    rows = [asdict(finding) for finding in findings]
    with writing_to(f"out={file}"):
        write_atomic(file, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
