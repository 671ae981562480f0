"""Folders and files as an attacker would send them; nothing in them may ever run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from knocking import Knock, knock

REMOTE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer


class EvilTokenizer(Qwen2Tokenizer):
    pass


class EvilConfig(Qwen2Config):
    model_type = "evil"


class EvilModel(Qwen2ForCausalLM):
    config_class = EvilConfig
"""
"""Code as a model folder brings it: it says that it ran, and then works."""


@dataclass
class Attack:
    """A folder to work in, the file that appears when code has run, and the command line."""

    folder: Path
    model: Path
    marker: Path
    capture: pytest.CaptureFixture[str]

    def knock(self, *arguments: str) -> Knock:
        return knock(self.capture, *arguments)

    def refused(self, *arguments: str, saying: str) -> None:
        """The command ends with one message that holds `saying`, and no code has run."""
        found = self.knock(*arguments)
        assert not self.marker.exists(), "code of a file ran"
        assert found.code == 2, found.err
        assert "Traceback" not in found.err
        assert saying in found.err, found.err

    def write(self, name: str, content: str) -> Path:
        """A file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def chats(self) -> Path:
        turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
        return self.write("chats.jsonl", (json.dumps(turns) + "\n") * 4)

    def add_code(self, folder: Path, *, tokenizer: bool = True, model: bool = False) -> None:
        """`auto_map` in a folder's JSON, and the Python file that it names."""
        (folder / "evil.py").write_text(REMOTE.format(marker=str(self.marker)), encoding="utf-8")
        if tokenizer:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            config |= {
                "tokenizer_class": "EvilTokenizer",
                "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]},
            }
            (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        if model:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config |= {
                "model_type": "evil",
                "architectures": ["EvilModel"],
                "auto_map": {
                    "AutoConfig": "evil.EvilConfig",
                    "AutoModelForCausalLM": "evil.EvilModel",
                },
            }
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def distrust(self, run: Path) -> None:
        """`trust_remote_code: true` in every run.yaml of a run folder."""
        for file in run.rglob("run.yaml"):
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
            config["model"]["trust_remote_code"] = True
            file.write_text(yaml.safe_dump(config), encoding="utf-8")
