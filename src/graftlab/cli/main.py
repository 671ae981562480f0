"""The command line: `graftlab <verb> ...` and `python train.py ...`.

Everything is composed, built and checked before anything runs. Exit codes:

    0    done
    1    a crash of ours, with its traceback; or a job of a sweep failed
    2    something to mend on the command line, in a file or a folder: one message, no traceback
    129  the terminal was closed (SIGHUP), after the run has saved
    130  Ctrl-C; a second one ends at once, whatever is being done
    141  whoever read the output has closed it, where the output is what was asked for
    143  SIGTERM, after the run has saved
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from graftlab import __version__
from graftlab.cli.compose import VERBS
from graftlab.cli.help import group_help, overview, verb_help
from graftlab.cli.launch import run_each, run_once, through_hydra
from graftlab.cli.overrides import Argument, read_arguments
from graftlab.cli.plugins import take_plugins
from graftlab.cli.preflight import CommandLine, composed
from graftlab.cli.schema import Schema, read_schema
from graftlab.cli.validate import check_arguments
from graftlab.commands import commands
from graftlab.errors import ConfigError, GraftlabError, Interrupted, did_you_mean
from graftlab.files.disk import disk_trouble, names_no_home
from graftlab.files.paths import conf_dir
from graftlab.process import hub_url, prepare_process, second_signal_ends
from graftlab.terminal import go_on_without_stdout, printable, steady_streams, tell_traceback

WORK = ("train", "tune", "prepare", "export", "serve")
"""Verbs whose product lies elsewhere, as does that of any verb with `out`: they go on without a
stdout. Of the others, the output is what was asked for."""
ALONE = ("-h", "--help", "--version", "-sc", "--shell-completion")
"""Flags that need no verb."""


def main(argv: Sequence[str] | None = None, *, call: str | None = None) -> int:
    """Answer a command line, `argv` without the program's name; returns the exit code.

    `call` is how this command line is called in messages, such as `python train.py`.
    """
    prepare_process()
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = call or " ".join(["graftlab", *filter(_is_known, arguments[:1])])
    with steady_streams(), second_signal_ends():
        return _answered(arguments, name)


def _is_known(word: str) -> bool:
    """Whether `word` may follow `graftlab`."""
    with suppress(GraftlabError):  # a plug-in that is missing; it is told when it is asked for
        return word in VERBS or word in commands()
    return False


def _answered(arguments: list[str], name: str) -> int:
    """The exit code, whatever happens; what went wrong is said."""
    try:
        code = _answer(arguments, name)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `--help | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except GraftlabError as error:
        _tell(name, str(error))
        return 2
    except KeyboardInterrupt:
        _tell(name, "stopped by Ctrl-C.")
        return 130
    except Exception as error:
        if names_no_home(error):
            _tell(name, "a path begins with ~, and this user has no home folder: give it in full.")
            return 2
        if (trouble := disk_trouble(error)) is not None:
            _tell(name, f"{trouble}.")
            return 2
        tell_traceback(error)
        return 1


def _answer(arguments: list[str], call: str) -> int:
    if arguments and arguments[0] not in VERBS and arguments[0] in commands():
        return commands()[arguments[0]].answer(arguments[1:], _answer)
    if arguments and arguments[0] not in ALONE and not VERBS.keys() & set(arguments):
        _require_verb(arguments[0])
    flags, typed = _flags(arguments)
    if flags.version:
        print(f"graftlab {__version__}")
        return 0
    if not arguments or (flags.help and not typed):
        print(overview())
        return 0
    if arguments[0] in ("-sc", "--shell-completion"):
        verb = _complete(typed)
        if verb is None:
            return 0
    else:
        verb, *typed = typed or arguments
        _require_verb(verb)
    hub_url()  # before any library that reads it
    extra = Path(flags.config_dir) if flags.config_dir else None
    if extra is not None and not extra.is_dir():
        raise ConfigError(f"--config-dir {extra}: there is no such folder.")
    typed = take_plugins(typed, extra)
    conf = conf_dir()
    choices = read_schema(verb, [conf, *([extra] if extra else [])])
    command = CommandLine(choices, conf, extra)
    if flags.help:
        print(_help(choices, typed, call))
        return 0
    if flags.hydra is not None:
        through_hydra(command, [*flags.hydra, *typed], _nothing)
        return 0
    sweeps = flags.multirun or verb == "tune"
    words = check_arguments(read_arguments(typed, verb), choices, multirun=sweeps)
    if flags.cfg:
        _show(command, flags, words)
        return 0
    if verb in WORK or any(word.key == "out" for word in words):
        go_on_without_stdout()
    try:
        if verb == "tune":
            return _tune(command, words)
        if flags.multirun:
            return (_sweep if verb == "train" else run_each)(command, words)
        spec, result = run_once(command, words)
    except Interrupted as stop:
        print(printable(stop), file=sys.stderr)
        return stop.exit_code
    if verb == "report" and spec.best and result is not None:
        from graftlab.cli.winner import conclude

        conclude(result, Path(spec.write).expanduser() if spec.write else None, command)
    return 0


def _sweep(command: CommandLine, words: Sequence[Argument]) -> int:
    """Every job is composed and checked, then the sweep's own engine runs them."""
    from graftlab.cli.sweep import order_of, read_sweep
    from graftlab.sweeps.run import run

    ended = run(order_of(read_sweep(command, words)))
    return 1 if ended.count("failed") else 0


def _tune(command: CommandLine, words: Sequence[Argument]) -> int:
    """As for a sweep; what was found is also written as an experiment."""
    from graftlab.cli.tune import conclude, order_of
    from graftlab.verbs import tune

    conclude(tune.run(order_of(command, words)), command, words)
    return 0


def _require_verb(word: str) -> None:
    if word not in VERBS:
        words = [*VERBS, *commands()]
        hint = did_you_mean(word, words) or f" Verbs: {', '.join(words)}."
        raise ConfigError(f"`{word}` is not a verb.{hint}")


def _complete(typed: Sequence[str]) -> str | None:
    """The verb of the line being typed, which completion calls the program without.

    None where its words are completed here.
    """
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.partition(" ")
    verb, gap, tail = rest.lstrip().partition(" ")
    if not any(word.startswith("query=") for word in typed):
        return "train"
    if gap and verb not in VERBS and verb in commands():
        print(" ".join(commands()[verb].completions(tail)))
        return None
    if verb not in VERBS or not gap:
        print(" ".join(name for name in [*VERBS, *commands()] if name.startswith(verb)))
        return None
    os.environ["COMP_LINE"] = f"{program} {tail}"
    return verb


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. Values are given as key=value; flags: see --help.")


def _flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags apart from words, wherever they stand."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    for flag in (("-sc", "--shell-completion"), ("--hydra-help",), ("-i", "--info")):
        parser.add_argument(*flag, dest="hydra", action="append_const", const=flag[-1])
    parser.add_argument("words", nargs="*")
    flags = parser.parse_intermixed_args(arguments)
    return flags, flags.words


def _help(choices: Schema, typed: Sequence[str], call: str) -> str:
    """The keys of the group that was asked for, the first one without `=` if there is such."""
    plain = [word for word in typed if "=" not in word]
    named = [re.split(r"[=.]", word)[0] for word in [*plain, *(w for w in typed if "=" in w)]]
    groups = choices.under("")
    if plain and named[0] not in groups:
        raise ConfigError(f"`{plain[0]}` is not a group.{did_you_mean(plain[0], groups)}")
    told = (group_help(choices, name, call) for name in named if name in groups)
    return next(filter(None, told), None) or verb_help(choices, call)


def _show(command: CommandLine, flags: argparse.Namespace, words: Sequence[Argument]) -> None:
    """`--cfg job`: Hydra shows the configuration; the run folder is only known when it runs."""
    folder = (
        ["run_dir=${hydra:run.dir}"] if flags.resolve and command.schema.verb == "train" else []
    )
    package = ["--package", flags.package] if flags.package else []
    resolve = ["--resolve"] if flags.resolve else []
    overrides = [*command.overrides(words), *folder]
    composed(command, overrides)
    through_hydra(command, ["--cfg", flags.cfg, *package, *resolve, *overrides], _nothing)


def _nothing(cfg: object) -> None:
    """What Hydra is given to run where it only shows something."""


def _tell(call: str, message: str) -> None:
    lines = printable(message).splitlines()
    gap = "\n  " if len(lines) > 1 else " "
    print(f"{call}:{gap}" + "\n  ".join(lines), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
