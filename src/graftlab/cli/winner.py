"""`report best=true`: the winner as an experiment, proven before it is written.

The file is composed as anybody would compose it, and must give back all that decides the result
of the run it was made from; else nothing is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftlab.cli.compose import build
from graftlab.cli.preflight import CommandLine, composed
from graftlab.cli.schema import read_schema
from graftlab.errors import ConfigError
from graftlab.files.ownership import unwritable
from graftlab.files.writing import write_atomic
from graftlab.registry import dump
from graftlab.reports.compare import Comparison
from graftlab.reports.winner import SIGN, Experiment, Winner, experiment_values, winner
from graftlab.terminal import printable
from graftlab.tracking.folder import read_config
from graftlab.tracking.identity import identity


def conclude(found: Comparison, target: Path | None, command: CommandLine) -> None:
    """Print the best configuration as an experiment, or write it to `target`.

    Raises ConfigError where nothing is best, where `target` is somebody's own file, or where the
    configuration cannot be said as an experiment.
    """
    run = winner(found)
    if run is None:
        raise ConfigError(f"best=true: {found.sentence()}")
    best = Winner(read_config(run.folder / "run.yaml"), found, run)
    text = proven(best, command)
    if target is None:
        print(printable(text))  # as it is: no line of a file may be wrapped
        return
    write(text, target, sign=SIGN, conf=command.conf)


def proven(best: Experiment, command: CommandLine) -> str:
    """The text of an experiment, composed again to see that it is the same run.

    Raises ConfigError where it is not.
    """
    train = CommandLine(read_schema("train", [command.conf]), command.conf)
    text = _text(best, train)
    _prove(text, best.config, train)
    return text


def write(text: str, target: Path, *, sign: str, conf: Path) -> None:
    """Write an experiment, and say how it is trained. Raises ConfigError where `target` is a file
    without the `sign`, or cannot be written.
    """
    try:
        if target.exists() and not (target.is_file() and sign.encode() in target.read_bytes()):
            raise ConfigError(f"write={target} was not written by this command: give another file.")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, text)
    except OSError as error:
        raise unwritable(f"write={target}", error) from error
    print(printable(f"{target}: train it again with {_call(target, conf)}"))


def _text(best: Experiment, train: CommandLine) -> str:
    """The file over the defaults that its own groups bring."""
    from omegaconf import OmegaConf

    usual = {group: train.schema.defaults.get(group) for group in best.choices()}
    chosen = {group: name for group, name in best.choices().items() if name != usual[group]}
    cfg = composed(train, ["run_dir=run", *(f"{group}={name}" for group, name in chosen.items())])
    defaults: Any = OmegaConf.to_container(cfg, resolve=False)
    return best.text(defaults, chosen)


def _prove(text: str, config: Mapping[str, Any], train: CommandLine) -> None:
    """Compose the file as an experiment. Raises ConfigError unless it is the same run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment" / "winner.yaml"
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        command = replace(train, extra=Path(folder))
        again = build(
            composed(command, [*command.overrides([]), "run_dir=run", "experiment=winner"])
        )
    ours, theirs = experiment_values(dump(again)), experiment_values(config)
    if identity(ours) != identity(theirs):
        raise ConfigError(
            "the configuration of the best run cannot be said as an experiment over "
            "these defaults; its run.yaml holds all of it. Was it made by another version?"
        )


def _call(target: Path, conf: Path) -> str:
    """The command that trains what `target` says."""
    folder = target.resolve().parent
    if folder == (conf / "experiment").resolve():
        return f"python train.py experiment={target.stem}"
    if folder.name == "experiment":
        return f"python train.py --config-dir {folder.parent} experiment={target.stem}"
    return "experiment=NAME, once it lies in conf/experiment/NAME.yaml"
