"""Option files hold values: nothing in them runs, reaches Hydra's node or reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hostile import Attack

SECRET = "sk-0123456789abcdef"
CALLBACK = """
    evil:
      _target_: pathlib.Path.touch
      self: {marker}
"""
GLOBAL = "# @package _global_\n"


def use(attack: Attack, content: str, *words: str, name: str = "experiment/evil.yaml") -> list[str]:
    """The command line that takes the option file."""
    attack.write(f"options/{name}", content)
    line = ["model=hf", f"model.path={attack.model}", "data=jsonl", f"data.train={attack.chats()}"]
    return ["train", "--config-dir", "options", *line, *(words or ["experiment=evil"])]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("hydra:\n  callbacks:" + CALLBACK, "hydra.callbacks"),
        ("hydra:\n  callbacks:\n    a:\n      _target_: torch.hub.load\n", "hydra.callbacks"),
        (
            "hydra:\n  callbacks:\n    a: {_target_: torch.load, f: x.pt, weights_only: false}\n",
            "hydra.callbacks.a._target_",
        ),
        ("hydra: {launcher: {_target_: evil.Launcher}}\n", "hydra.launcher"),
        ("hydra: {sweeper: {_target_: evil.Sweeper}}\n", "hydra.sweeper"),
        ("hydra: {searchpath: ['file:///tmp']}\n", "hydra.searchpath"),
        ("hydra: {job_logging: {handlers: {a: {class: evil.Handler}}}}\n", "hydra.job_logging"),
        ("hydra: {hydra_logging: {handlers: {a: {(): evil.Handler}}}}\n", "hydra.hydra_logging"),
        ("hydra: {output_subdir: ../../elsewhere}\n", "hydra.output_subdir"),
        ("hydra: {job: {env_set: {PYTHONPATH: evil}}}\n", "hydra.job"),
        ("hydra: {job: {name: ../../../elsewhere}}\n", "hydra.job"),
        ("hydra: {run: {dir: here, other: x}}\n", "hydra.run.other"),
        ("hydra: null\n", "hydra"),
        ("hydra: {run: '${evil}'}\n", "hydra.run"),
        ("optimizer: {arguments: {_target_: os.system}}\n", "optimizer.arguments._target_"),
        ("lora: [{_partial_: true}]\n", "lora[0]._partial_"),
        ("defaults:\n  - override /hydra/launcher: joblib\n", "/hydra/launcher"),
        ("defaults:\n  - override  /hydra/job_logging: stdout\n", "/hydra/job_logging"),
        ("defaults:\n  - /hydra/callbacks: mine\n", "/hydra/callbacks"),
        ("defaults:\n  - optional /schema@hydra.callbacks: train\n", "hydra.callbacks"),
        (
            "defaults:\n  - /experiment@_global_.hydra.callbacks: other\n",
            "_global_.hydra.callbacks",
        ),
        ("defaults:\n  - /experiment: ../hydra/callbacks/mine\n", "../hydra/callbacks/mine"),
        ("defaults:\n  - /model: ${oc.env:WHICH}\n", "${oc.env:WHICH}"),
        ("model: {trust_remote_code: true}\n", "model.trust_remote_code"),
        ("model: {trust_remote_code: 'yes'}\n", "model.trust_remote_code"),
        ("model: {trust_remote_code: '${yes}'}\nyes: true\n", "model.trust_remote_code"),
        ("name: ${oc.env:OPENAI_API_KEY}\n", "oc.env"),
        ("name: x-${oc.decode:${oc.env:OPENAI_API_KEY}}\n", "oc.decode"),
        ("name: ${oc.select:seed,${oc.env:OPENAI_API_KEY}}\n", "oc.env"),
        ("name: ${hydra:job.env_copy}\n", "hydra"),
        ("name: ${${way}.env:OPENAI_API_KEY}\n", "${way}.env"),
        ("data: {train: ['${oc.env:OPENAI_API_KEY}']}\n", "data.train[0]"),
        ("rewriter: {url: 'https://evil.example/v1'}\n", "rewriter.url"),
        ("rewriter: {key_env: AWS_SECRET_ACCESS_KEY}\n", "rewriter.key_env"),
        ("key_env: AWS_SECRET_ACCESS_KEY\n", "key_env"),
        ("host: 0.0.0.0\n", "host"),
        ("launcher: {setup: ['touch {marker}']}\n", "launcher.setup"),
        (
            "data: {prepare: {rewriter.url: 'https://evil.example/v1'}}\n",
            "data.prepare.rewriter.url",
        ),
    ],
)
def test_an_experiment_is_refused_by_key_and_file(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, content: str, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    attack.write("options/hydra/callbacks/mine.yaml", CALLBACK)
    line = use(attack, GLOBAL + content.replace("{marker}", str(attack.marker)))
    knock = attack.knock(*line)
    assert not attack.marker.exists()
    assert knock.code == 2, knock.err
    assert "experiment/evil.yaml: " in knock.err
    assert f"`{key}" in knock.err or key in knock.err, knock.err
    assert SECRET not in knock.out + knock.err
    assert not (attack.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("model.trust_remote_code", "true,false"),
        ("model.trust_remote_code", [True]),
        ("hydra.callbacks.evil._target_", "evil.One,evil.Two"),
        ("++hydra.callbacks", ["a", "b"]),
        ("+hydra/callbacks", "mine,theirs"),
        ("data.prepare.rewriter.url", ["https://evil.example/v1", "http://localhost/v1"]),
        ("data.prepare.rewriter.key_env", "AWS_SECRET_ACCESS_KEY,OPENAI_API_KEY"),
        ("data.prepare", ["{rewriter: {url: 'https://evil.example/v1'}}", "{}"]),
        ("precision.compute", "\\${oc.env:HOME},fp32"),
        ("launcher.setup", ["touch here"]),
    ],
)
def test_the_space_of_a_sweep_is_judged(attack: Attack, key: str, values: object) -> None:
    """Its entries become words of the command line, which may more than a file."""
    content = GLOBAL + yaml.safe_dump({"sweep": {"space": {key: values}}})
    line = use(attack, content, "-m", "experiment=evil", "lr=1e-3,1e-4")
    attack.refused(*line, saying=f"experiment/evil.yaml: `sweep.space.{key}")


@pytest.mark.parametrize("package", ["hydra", "hydra.callbacks", "_global_.hydra.callbacks"])
def test_a_package_directive_does_not_reach_hydra(attack: Attack, package: str) -> None:
    content = f"# @package {package}\n{CALLBACK}".replace("{marker}", str(attack.marker))
    attack.refused(*use(attack, content), saying=f"`@package {package}`")


def test_a_folder_of_hydra_options_is_refused(attack: Attack) -> None:
    content = CALLBACK.replace("{marker}", str(attack.marker))
    line = use(attack, content, "+hydra/callbacks=evil", name="hydra/callbacks/evil.yaml")
    attack.refused(*line, saying="`hydra/`")


def test_a_swept_experiment_is_judged_before_any_job(attack: Attack) -> None:
    content = GLOBAL + "hydra:\n  callbacks:" + CALLBACK.replace("{marker}", str(attack.marker))
    attack.refused(*use(attack, content), "-m", "lr=1e-3,1e-4", saying="hydra.callbacks")


def test_other_verbs_judge(attack: Attack) -> None:
    content = GLOBAL + "hydra:\n  callbacks:" + CALLBACK.replace("{marker}", str(attack.marker))
    attack.refused("plan", *use(attack, content)[1:], saying="hydra.callbacks")
    attack.write("options/data/evil.yaml", content)
    line = ["--config-dir", "options", "data=evil"]
    attack.refused("inspect", "model=tiny", *line, saying="hydra.callbacks")


def test_a_recipe_is_judged(attack: Attack) -> None:
    attack.write("options/recipe/evil.yaml", GLOBAL + "rewriter: {_target_: os.system}\n")
    line = ["prepare", "--config-dir", "options", "recipe=evil", "out=made"]
    attack.refused(*line, saying="recipe/evil.yaml: `rewriter._target_`")


def test_what_is_harmless_is_taken(attack: Attack) -> None:
    content = "seed: 3\nhydra: {run: {dir: 'here/${now:%Y}'}}\nlora: {rank: '${seed}'}\n"
    line = use(attack, GLOBAL + content + "name: a \\${oc.env:HOME} b\n")
    knock = attack.knock(*line, "--cfg", "job")
    assert knock.code == 0, knock.err
    assert "seed: 3" in knock.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x: " + "[" * 200 + "]" * 200, "nested more than"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n"
                for n in range(9)
            ),
            "stands for more than",
        ),
        ("x: '" + "y" * 2**20 + "'", "is larger than"),
        ("x: !!python/object/apply:os.system ['touch marker']\n", "is no YAML"),
        ("- just\n- a list\n", "holds keys"),
    ],
)
def test_a_bomb_is_refused_by_name(attack: Attack, content: str, said: str) -> None:
    knock = attack.knock(*use(attack, content))
    assert knock.code == 2, knock.err
    assert said in knock.err
    assert "evil.yaml" in knock.err or "experiment/evil" in knock.err
    assert not attack.marker.exists()


def test_a_link_to_a_device_is_no_option_file(attack: Attack) -> None:
    line = use(attack, "seed: 1\n", "experiment=zero")
    os.symlink("/dev/zero", attack.folder / "options" / "experiment" / "zero.yaml")
    knock = attack.knock(*line)
    assert knock.code == 2, knock.err
    assert "zero" in knock.err


def test_hydra_on_the_command_line_is_the_users_own(attack: Attack) -> None:
    line = use(attack, "seed: 1\n", "hydra.run.dir=mine", "hydra.verbose=false", "--cfg", "hydra")
    knock = attack.knock(*line)
    assert knock.code == 0, knock.err
    assert "dir: mine" in knock.out


@pytest.mark.parametrize("word", ["name=", "logger.wandb.group=run-"])
def test_a_secret_is_written_nowhere(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", SECRET)
    line = use(attack, "seed: 1\n", f"{word}{SECRET}")
    attack.refused(*line, saying="holds the value of $MY_API_TOKEN")
    assert not any(SECRET in file.read_text("utf-8") for file in _texts(attack.folder))


def test_a_typed_resolver_brings_no_secret(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", SECRET)
    line = use(attack, "seed: 1\n", "precision.compute=${oc.env:MY_PASSWORD}")
    knock = attack.knock(*line)
    assert knock.code == 2, knock.err
    assert not any(SECRET in file.read_text("utf-8") for file in _texts(attack.folder))


def test_hydras_environment_takes_no_secret(attack: Attack) -> None:
    line = use(attack, "seed: 1\n", f"+hydra.job.env_set.OPENAI_API_KEY={SECRET}")
    attack.refused(*line, saying="`hydra.job.env_set.OPENAI_API_KEY`")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *(("OPENAI_API_KEY", True), ("HF_TOKEN", True), ("AWS_SECRET_ACCESS_KEY", True)),
        *(("DB_PASSWORD", True), ("GOOGLE_CREDENTIALS", True), ("GITHUB_PAT_TOKEN_2", True)),
        *(("KEYBOARD", False), ("PATH", False), ("TOKENIZERS_PARALLELISM", False)),
    ],
)
def test_what_counts_as_a_secret(name: str, secret: bool) -> None:
    from graftlab.cli.secrets import is_secret

    assert is_secret(name) is secret


def _texts(folder: Path) -> list[Path]:
    kinds = (".yaml", ".json", ".log", ".md", ".csv")
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds]


@pytest.mark.parametrize(
    "values",
    [
        {"extra": {"comment": "a\ntouch marker"}},
        {"extra": {"a\ntouch marker\n": True}},
        {"account": "a\ntouch marker"},
        {"partition": "a\rtouch marker"},
    ],
)
def test_an_option_of_sbatch_is_one_line(values: dict[str, Any]) -> None:
    """It becomes a line of a script of the shell, and a second one would be run."""
    from graftlab.errors import ConfigError
    from graftlab.sweeps.launchers.slurm import SlurmLauncher

    with pytest.raises(ConfigError, match="must be one line"):
        SlurmLauncher(**values)
