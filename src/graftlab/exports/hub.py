"""`target=hub`: a folder as the Hugging Face hub shows it, pushed with `target.push=ORG/NAME`.

    README.md                                         base, licence, scores, data hashes, use
    adapter_config.json, adapter_model.safetensors    or, with target.content=merged, a whole model
    tokenizer*, *.jinja                               those that the adapter was trained with

No place of this machine is named in it: the base is named by its id on the hub.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftlab.errors import ConfigError, ModelError, require_choice
from graftlab.exports.merged import Merged
from graftlab.exports.model_card import FILE as README
from graftlab.exports.model_card import PARITY, ModelCard, add_section
from graftlab.exports.peft import CONFIG, WEIGHTS, in_peft
from graftlab.exports.plain_base import require_base, runtime_on_base
from graftlab.exports.runtimes.plain import rounding
from graftlab.exports.source import Trained
from graftlab.exports.target import Target, compare_file, save_tensors, write_config
from graftlab.files.checksums import write_checksums
from graftlab.models.weights import read_json
from graftlab.registry import choice
from graftlab.tracking.card import FILE as CARD
from graftlab.tracking.card import sections

if TYPE_CHECKING:
    from graftlab.adapters.artifact import TrainedModel
    from graftlab.exports.parity.spec import Bounds
    from graftlab.exports.runtimes.base import NotHere, Runtime

CONTENTS = ("adapter", "merged")
PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
"""Keys of JSON files that say where on a machine a model lay."""
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LARGEST_CARD = 2**20
"""Bytes of the run's card."""


@choice("hub")
@dataclass(kw_only=True, slots=True)
class Hub(Target):
    """A repository of the Hugging Face hub."""

    shared: ClassVar[bool] = True

    content: str = "adapter"
    """adapter, or merged: the whole model, as target=merged writes it."""
    base: str | None = None
    """The base's id on the hub, ORG/NAME, where it was trained from a folder."""
    license: str | None = None
    """Licence of what is shared, by the hub's names: apache-2.0, mit, llama3.2, other ..."""
    license_name: str | None = None
    """What a licence=other is called."""
    license_link: str | None = None
    """Where its text is."""
    push: str | None = None
    """Upload it to this repository, ORG/NAME; needs a token of the hub."""
    private: bool = True
    """Nobody else sees the repository that is made; false says that all may."""

    def __post_init__(self) -> None:
        require_choice("target.content", self.content, CONTENTS)
        for key, value in (("base", self.base), ("push", self.push)):
            if value is not None and not ID.fullmatch(value):
                raise ConfigError(f"target.{key}={value} is no id of the hub, such as ORG/NAME.")
        if self.license == "other" and not (self.license_name and self.license_link):
            raise ConfigError(
                "target.license=other needs target.license_name and target.license_link."
            )

    def check_files(self) -> None:
        if self.push is not None:
            _require_token(self.push)

    def check(self, adapter: Trained) -> list[str]:
        trained = require_base(adapter, "hub")
        if self.content == "merged":
            notes = Merged().check(adapter)
        else:
            notes = list(in_peft(adapter).notes)
            self._base(trained, required=True)
        if self.license is None:
            notes.append("its card names no licence: target.license=apache-2.0, say")
        if self._told(adapter) == {}:
            notes.append(f"its card tells no scores: there is no {CARD} of a run beside it")
        return notes

    def write(self, adapter: Trained, folder: Path) -> None:
        trained = require_base(adapter, "hub")
        if self.content == "merged":
            Merged().write(adapter, folder)
        else:
            made, own = in_peft(adapter), adapter.path / WEIGHTS
            if own.is_file():  # with what it says of its base, which graftlab looks at
                shutil.copyfile(own, folder / WEIGHTS)
            else:
                save_tensors(made.state, folder / WEIGHTS, library="pt")
            write_config(folder / CONFIG, made.config)
            trained.load_tokenizer().save(folder)
        base = self._base(trained, required=self.content == "adapter")
        for file in folder.glob("*.json"):
            _without_places(file, base)
        (folder / README).write_text(self._card(adapter, folder, base).text(), encoding="utf-8")
        write_checksums(folder)

    def verify(self, adapter: Trained, folder: Path) -> list[str]:
        trained = require_base(adapter, "hub")
        if found := sorted(set(_local_places(adapter, trained, folder))):
            raise ModelError(
                f"{', '.join(found)} would name places on this machine to everybody. Take them "
                f"out of {adapter.path / CARD}, or of the base's files. Nothing was kept."
            )
        if self.content == "merged":
            facts = Merged().verify(adapter, folder)
        else:
            count = compare_file(folder / WEIGHTS, in_peft(adapter).state)
            facts = [f"{count} tensors read back equal"]
        return [*facts, f"{README} is its card; no place on this machine is named"]

    def runtime(self, adapter: Trained, folder: Path) -> Runtime | NotHere:
        if self.content == "merged":
            return Merged().runtime(adapter, folder)
        return runtime_on_base(adapter, folder, tokenizer=folder)

    def bounds(self, folder: Path) -> Bounds:
        return rounding(folder)

    def diagnose(self, adapter: Trained, folder: Path) -> list[str]:
        return Merged().diagnose(adapter, folder) if self.content == "merged" else []

    def tell(self, folder: Path, lines: list[str]) -> list[str]:
        if not (folder / README).is_file():  # taken away since
            return []
        add_section(folder / README, PARITY, lines)
        return [README]

    def publish(self, folder: Path) -> list[str]:
        if self.push is None:
            return [f"to share it: hf upload --private ORG/NAME {folder}"]
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            api.create_repo(self.push, private=self.private, exist_ok=True)
            if self.private and not api.repo_info(self.push).private:
                raise ConfigError("it is there and public: target.private=false says it may be")
            commit = api.upload_folder(
                repo_id=self.push, folder_path=folder, commit_message="Upload by graftlab"
            )
        except Exception as error:  # the hub client raises a dozen unrelated types
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"target.push={self.push}: {reason or type(error).__name__}. It was not pushed; "
                f"the export is whole and lies in {folder}."
            ) from error
        return [f"pushed: {commit.commit_url}"]

    def _base(self, trained: TrainedModel, *, required: bool) -> str | None:
        """The base's id on the hub. Raises ConfigError where there is none and one is needed."""
        found = self.base or getattr(trained.model, "hub", None)
        if found is None and required:
            raise ConfigError(
                f"the adapter was trained on {trained.model.name}, a folder, and whoever loads it "
                "from the hub needs a base there: give target.base=ORG/NAME."
            )
        return found

    def _card(self, adapter: Trained, folder: Path, base: str | None) -> ModelCard:
        licence = {
            "license": self.license,
            "license_name": self.license_name,
            "license_link": self.license_link,
        }
        return ModelCard(
            name=self.push or folder.name,
            base=base,
            merged=self.content == "merged",
            adapter=adapter.config,
            licence={key: value for key, value in licence.items() if value},
            told=self._told(adapter),
        )

    def _told(self, adapter: Trained) -> dict[str, str]:
        from graftlab.files.reading import read_text

        file = adapter.path / CARD
        return sections(read_text(file, most=LARGEST_CARD)) if file.is_file() else {}


def _require_token(repository: str) -> None:
    """Raise ConfigError where nothing can be pushed from here."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"target.push={repository}: HF_HUB_OFFLINE is set.")
    if get_token() is None:
        raise ConfigError(
            f"target.push={repository} needs a token of the hub that may write: run "
            "`hf auth login`, or set HF_TOKEN."
        )


def _without_places(file: Path, base: str | None) -> None:
    """Take out of a JSON file where the base lay; PEFT is told its id."""
    content = read_json(file)
    if not content.keys() & set(PLACES):
        return
    kept: dict[str, Any] = {key: value for key, value in content.items() if key not in PLACES}
    if file.name == CONFIG:
        kept["base_model_name_or_path"] = base
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _local_places(adapter: Trained, trained: TrainedModel, folder: Path) -> Iterator[str]:
    """`FILE: PLACE` of every folder of ours that is named in a text for people or programs."""
    places = {Path.home(), Path.cwd(), adapter.path, adapter.path.parent, folder.parent}
    places |= {trained.model.folder()}
    named = [str(place) for place in places if len(place.parts) > 1]
    for file in (*folder.glob("*.md"), *folder.glob("*config*.json")):
        text = file.read_text(encoding="utf-8")
        yield from (f"{file.name}: {place}" for place in named if place in text)
