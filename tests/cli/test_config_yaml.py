"""Every YAML under conf/ composes and builds, and refuses what does not belong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from graftlab.cli.compose import VERBS, build, compose
from graftlab.cli.help import field_docs
from graftlab.cli.overrides import read_arguments
from graftlab.cli.schema import read_schema
from graftlab.cli.validate import check_arguments
from graftlab.errors import ConfigError, GraftlabError
from graftlab.files.paths import conf_dir
from graftlab.registry import choices, dump, field_types, groups, place_of, restore
from graftlab.training.spec import TrainSpec
from graftlab.verbs.train import TrainCommand

CONF = conf_dir()
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent != CONF and not path.name.startswith("_")]
TRAINED = set(read_schema("train", [CONF]).groups)
NAMES = [f"{p.parent.name}={p.stem}" for p in OPTIONS if p.parent.name in TRAINED]
"""The options of `train`; those of other verbs alone have tests of their own."""

NEEDED = {
    "model=draft": ["model.of=RUN"],
    "objective=distill": ["objective.teacher=RUN"],
    "experiment=draft": ["objective.teacher=RUN"],
    "model=gguf": ["model.path=FILE.gguf"],
    "model=hf": ["model.hub=someone/some-model"],
    "data=jsonl": ["data.train=chats.jsonl"],
    "data=prepared": ["data.path=prepared"],
    "experiment=ficino": ["model.path=assets"],
}
EXPERIMENTS = [name for name in NAMES if name.startswith("experiment=")]


def needed(name: str) -> list[str]:
    """What a choice requires from its user."""
    own = name == "experiment=elevator"  # brings its data along
    data = ["data.train=chats.jsonl"] if name in EXPERIMENTS and not own else []
    return [*NEEDED.get(name, []), *data]


@cache
def built(*overrides: str, verb: str = "train") -> Any:
    words = check_arguments(
        read_arguments(overrides, verb), read_schema(verb, [CONF]), multirun=False
    )
    cfg = compose(verb, [word.hydra for word in words])
    if verb == "train":
        cfg.run_dir = "run"
    return build(cfg)


def test_all_options_are_known() -> None:
    assert len(OPTIONS) >= 58
    folders = {path.parent.name for path in OPTIONS}
    offered = {group for verb in VERBS for group in read_schema(verb, [CONF]).groups}
    assert folders ^ offered <= {"sweep"}  # spaces, which only the engine of sweeps offers
    for group in groups():
        assert set(choices(group)) <= {path.stem for path in OPTIONS if path.parent.name == group}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("machine=")])
def test_every_option_composes_and_builds(name: str) -> None:
    """Those of `machine` are composed in tests/planning/test_planning_devices.py."""
    group, option = name.split("=")
    value = f"[default,{option}]" if group == "callbacks" else option
    spec = built(f"{group}={value}", *needed(name))
    assert isinstance(spec, TrainCommand)
    run = spec.training()
    assert restore(TrainSpec, yaml.safe_load(yaml.safe_dump(dump(run)))) == run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_builds(verb: str) -> None:
    needs = {
        "sample": ["model=tiny", "prompt=Hello"],
        "chat": ["model=tiny"],
        "serve": ["model=tiny"],
        "evaluate": ["model=tiny", "prompts=FILE"],
        "prepare": ["corpus=chats.jsonl"],
        "export": ["adapter=RUN", "target=peft", "out=DIR"],
    }
    assert isinstance(built(*needs.get(verb, []), verb=verb), VERBS[verb])


def test_defaults_are_those_of_the_classes() -> None:
    from graftlab.data.demo import DemoData
    from graftlab.models.tiny import TinyModel
    from graftlab.objectives.sft import SFT
    from graftlab.sweeps.launchers.auto import AutoLauncher
    from graftlab.tracking.wandb import WandbLogs
    from graftlab.training.optimizers.adamw import AdamW

    plain = TrainCommand(model=TinyModel(), data=DemoData(), objective=SFT(), optimizer=AdamW())
    plain.run_dir = "run"
    plain.schedule.warmup_ratio = 0.1
    plain.logger.chosen = {"wandb": WandbLogs()}
    plain.launcher = AutoLauncher()
    plain.lr, plain.packing.max_length = 5e-3, 1024  # what data=demo sets for its tiny base
    assert built() == plain


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_line_is_commented(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#")
    for line in lines:
        value = re.fullmatch(r"\s*(- )?[\w/@.-]+:?( .*)?", line)
        opens = line.rstrip().endswith(":")
        if value and not line.startswith("#") and not opens:
            assert " # " in line, f"{path.name}: {line!r} has no comment"


WHOLE = {"machine": "a data sheet each, read one by one", "experiment": "a guide's record each"}
"""Groups whose files say all of theirs themselves, and why."""


def key_lines(path: Path) -> Iterator[str]:
    """Every value of a file with its dotted key and its comment, as `lora.rank: 16 # ...`."""
    parents: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"((?:  )*)([\w.\"-]+): (?!#)(.+)", line)
        opens = re.fullmatch(r"((?:  )*)([\w.\"-]+):(?: #.*)?", line)
        if match := found or opens:
            parents[len(match[1]) // 2 :] = [match[2]]
        if found:
            yield f"{'.'.join(parents)}: {found[3]}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda p: p.name)
def test_a_key_with_its_comment_stands_once(folder: Path) -> None:
    """What choices, or verbs, share is inherited: a change is made in one place."""
    if folder.name in WHOLE:
        return
    lines = Counter(line for path in sorted(folder.glob("*.yaml")) for line in key_lines(path))
    twice = [line for line, count in lines.items() if count > 1]
    assert lines
    assert not twice


def test_key_lines_are_found() -> None:
    """Guards the test above."""
    found = [line.partition(" #")[0] for line in key_lines(CONF / "train.yaml")]
    assert "hydra.job.name: train" in found
    assert 'hydra.job_logging.formatters.plain.format: "%(message)s"' in found
    assert sum(1 for path in FILES for _ in key_lines(path)) > 400


def test_what_choices_share_is_no_choice() -> None:
    from hydra.core.object_type import ObjectType

    from graftlab.cli.options import FileConfigSource

    shared = [path for path in FILES if path.name.startswith("_")]
    assert len(shared) > 5
    source = FileConfigSource(provider="main", path=f"file://{CONF}")
    for path in shared:
        group = path.parent.name
        offered = [
            name for verb in VERBS for name in read_schema(verb, [CONF]).groups.get(group, [])
        ]
        offered += source.list("" if path.parent == CONF else group, ObjectType.CONFIG)
        assert offered
        assert path.stem not in offered
    with pytest.raises(ConfigError, match="optimizer=_base is not one of adamw, custom"):
        built("optimizer=_base")


def nodes() -> list[tuple[str, str]]:
    """One key of every group of the train verb that has keys, with an option that has it."""
    found = []
    spec = built()
    for group in read_schema("train", [CONF]).groups:
        if group not in ("experiment", "debug", "objective"):
            keys = field_types(type(attrgetter(place_of(group))(spec)))
            found += [(group, key) for key in [*keys][:1]]
    return found


@pytest.mark.parametrize(("group", "key"), nodes())
@pytest.mark.parametrize("force", ["", "+", "++"])
def test_a_typo_is_refused_in_every_group(group: str, key: str, force: str) -> None:
    wrong = f"{key[:-1]}x{key[-1]}"
    with pytest.raises(ConfigError) as caught:
        built(f"{force}{group}.{wrong}=1")
    assert f"`{group}.{wrong}`" in str(caught.value)
    assert f"`{group}.{key}`" in str(caught.value)


@pytest.mark.parametrize("group", sorted(set(read_schema("train", [CONF]).groups)))
def test_an_unknown_option_is_refused_in_every_group(group: str) -> None:
    first = read_schema("train", [CONF]).groups[group][0]
    with pytest.raises(ConfigError, match=re.escape(f"{group}={first}x is not one of")) as caught:
        built(f"{group}={first}x")
    assert f"Did you mean `{first}`?" in str(caught.value)


ONE_EACH = {name.split("=")[0]: name for name in NAMES}


@pytest.mark.parametrize("name", ONE_EACH.values())
def test_a_typo_in_a_file_is_refused(name: str, tmp_path: Path) -> None:
    """A copy of conf/ whose option has one more key does not compose."""
    from graftlab.cli.preflight import CommandLine, verify

    shutil.copytree(CONF, tmp_path / "conf")
    group, option = name.split("=")
    file = tmp_path / "conf" / group / f"{option}.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\nmisspelt: 1\n", encoding="utf-8")
    command = CommandLine(read_schema("train", [tmp_path / "conf"]), tmp_path / "conf")
    value = f"[default,{option}]" if group == "callbacks" else option
    with pytest.raises(GraftlabError, match="misspelt"):
        verify(command, [f"{group}={value}", *needed(name)])


def test_every_key_says_what_it_is() -> None:
    """`--help` reads the docstring under each field; no field goes without."""
    from graftlab.hints import nested_spec

    specs = [type(getattr(built(), name)) for name in ("precision", "packing", "lora", "schedule")]
    specs += [cls for group in groups() for cls in choices(group).values()]
    for cls in [*VERBS.values(), *specs]:
        for name, hint in field_types(cls).items():
            assert nested_spec(hint) or field_docs(cls).get(name), f"{cls.__name__}.{name}"


def test_importing_the_config_loads_no_torch() -> None:
    heavy = ("torch", "lightning", "transformers", "peft", "wandb", "hydra", "numpy")
    code = f"import sys, graftlab.cli.compose; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_restore_refuses_unknown_keys_and_choices() -> None:
    data = dump(built().training())
    with pytest.raises(ConfigError, match=r"`lora\.rnak`.*Did you mean `rank`"):
        restore(TrainSpec, {**data, "lora": {"rnak": 8}})
    with pytest.raises(ConfigError, match=r"model\.choice=hff .*Did you mean `hf`"):
        restore(TrainSpec, {**data, "model": {"choice": "hff"}})
    assert restore(TrainSpec, data) == built().training()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epochs", True), ("resume", 1), ("logger", None)),
        *(("lora.rank", 8.5), ("model.path", ["a"])),
    ],
)
def test_restore_refuses_values_of_another_type(key: str, value: Any) -> None:
    """A run's settings and an export's record travel: they may say anything."""
    data = dump(built("model=hf", "model.path=base").training())
    *parents, last = key.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    assert last in place
    place[last] = value
    with pytest.raises(ConfigError, match=f"`?{key}`?.*{re.escape(repr(value))}"):
        restore(TrainSpec, data)


def test_groups_that_take_lists() -> None:
    both = built("logger=[wandb,tensorboard]").logger
    assert set(both.chosen) == {"wandb", "tensorboard"}
    assert built("logger=csv").logger.chosen == {}
    stops = built("callbacks=[default,early-stopping,plateau]").callbacks
    assert set(stops.chosen) == {"early_stopping", "likelihood", "plateau", "repetition"}
    assert stops.validation.every_epochs == 1


def test_inspect_plans_the_rows_that_train_packs() -> None:
    for words in ([], ["packing.max_length=300"]):
        assert built(*words, verb="inspect").packing == built(*words).packing


def test_an_option_of_the_users_own_begins_from_one_of_ours(tmp_path: Path) -> None:
    from graftlab.cli.preflight import CommandLine, verify

    (tmp_path / "lora").mkdir()
    text = "defaults:\n  - dora\n  - _self_\n\nrank: 64\n"
    (tmp_path / "lora" / "mine.yaml").write_text(text, encoding="utf-8")
    command = CommandLine(read_schema("train", [CONF, tmp_path]), CONF, tmp_path)
    lora = verify(command, command.overrides(read_arguments(["lora=mine"], "train"))).lora
    assert (lora.rank, lora.dora, lora.targets) == (64, True, "attn-mlp")
