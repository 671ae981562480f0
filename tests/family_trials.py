"""A family of decoders goes through graftlab, and is held against plain transformers and PEFT.

Three steps with documents packed and each by itself, greedy replies in a batch and alone, and the
logits of the adapter as it lies in its folder.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chats import chats
from families import save_family
from graftlab.adapters.attach import load_adapter
from graftlab.adapters.lora import Lora
from graftlab.adapters.store import FolderSource
from graftlab.errors import GraftlabError
from graftlab.generation.sampling import Generation
from graftlab.generation.turn import text_of
from graftlab.models.cache import acquire
from graftlab.models.hf import HFModel
from graftlab.packing.plan import Packing
from graftlab.training.precision import Precision
from graftlab.training.schedule import Schedule
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run as train
from graftlab.types import Message
from graftlab.verbs.sample import SampleSpec
from graftlab.verbs.sample import run as sample
from miniatures import flat_batch, single_documents
from training_spec import small_spec

STEPS = 3
REPLY = 6
"""Tokens of a reply."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a family trains here."""

    trains: str
    """packed, unpacked or refused."""
    why: str = ""
    """What keeps documents from sharing a row, or the refusal."""
    targets: tuple[str, ...] = ()
    """What `lora.targets=auto` finds, in the order of the layers."""


def trial(model_type: str, place: Path) -> Trial:
    """Take the family's miniature through graftlab, in the new folder `place`.

    Raises AssertionError where graftlab computes something else than transformers and PEFT.
    """
    folder = save_family(model_type, place / model_type)
    chats(place / "train.jsonl", 6)
    model = HFModel(path=str(folder))
    try:
        model.check()
        try:
            return _trial(model, place / "auto")
        except GraftlabError as error:
            if "model.attention=own" not in str(error):
                raise
            found = _trial(replace(model, attention="own"), place / "own")
            return replace(found, why="`model.attention=own`")
    except GraftlabError as error:
        return Trial("refused", str(error).replace(str(folder), model_type))


def _trial(model: HFModel, place: Path) -> Trial:
    obstacle = model.packing_obstacle
    spec = replace(
        small_spec(place.parent),
        model=model,
        lora=Lora(rank=4, targets="auto"),
        packing=Packing(max_length=512),
        batch_size=6,
        schedule=Schedule(),
        max_steps=STEPS,
        lr=2e-2,
        run_dir=str(place / "run"),
    )
    spec.data.valid = None
    losses = trained(spec)
    assert losses[-1] < losses[0], f"it does not learn: {losses}"
    if obstacle is None:
        alone = replace(spec, packing=Packing(strategy="none"), batch_size=1, accumulate=6)
        found = trained(replace(alone, run_dir=str(place / "alone")))
        assert found == pytest.approx(losses, rel=1e-4), "packed and alone learn differently"
    targets = compare_with_peft(model, Path(spec.run_dir))
    return Trial("packed" if obstacle is None else "unpacked", obstacle or "", targets)


def trained(spec: TrainSpec) -> list[float]:
    """The loss of each step."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        train(spec)
    with (Path(spec.run_dir) / "train_log.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def compare_with_peft(model: HFModel, run: Path) -> tuple[str, ...]:
    """Logits of packed documents, and a greedy reply, against plain PEFT on each text alone.

    Returns what the adapter is on.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = model.folder()
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    theirs = PeftModel.from_pretrained(plain, run / "adapter").eval()
    batch = flat_batch([19, 7, 13])
    with acquire(model, dtype=torch.float32, device=torch.device("cpu")) as base, torch.no_grad():
        bare = base.logits(base.hidden(batch)[0])
        adapter = load_adapter(base, FolderSource(run / "adapter"))
        ours = base.logits(base.hidden(batch)[0])
        expected = [logits_of(theirs, one.input_ids) for one in single_documents(batch)]
        targets = tuple(dict.fromkeys(name.rpartition(".")[2] for name in adapter.layers))
        assert all(logits.std() > 0.01 for logits in expected), "logits say nothing"
        changed = expected[0] - logits_of(theirs, batch.input_ids[:, 1:19])[-1]
        assert changed[-1].abs().max() > 1e-3, "tokens before the last do not count"
    distance = (ours - torch.cat(expected)).norm() / torch.cat(expected).norm()
    assert distance < 1e-4, f"plain PEFT is {distance:.1g} away"
    assert (ours - bare).norm() > 1e-3 * bare.norm(), "the adapter does nothing"
    compare_replies(model, run, theirs)
    return targets


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Next-token logits (T, V) of one text (1, T), read at once."""
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits


def compare_replies(model: HFModel, run: Path, theirs: Any) -> None:
    """Greedy replies, in a batch and alone, against plain PEFT that reads each text anew."""
    rows = str(run.parents[1] / "train.jsonl")
    for batch, limit in ((3, 3), (1, 1)):
        spec = SampleSpec(
            model=model, adapter=str(run), prompts=rows, limit=limit, batch=batch, compare=False,
            precision=Precision(name="fp32"), generation=Generation(max_new_tokens=REPLY),
        )  # fmt: skip
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            answers = sample(spec)
        assert len(answers) == limit
        for answer in answers:
            expected = greedy(model, theirs, answer.prompt.conversation.messages)
            assert answer.replies["adapter"].text == expected, f"{batch} at a time"


def greedy(model: HFModel, theirs: Any, messages: Sequence[Message]) -> str:
    """A reply, the whole text read anew for each of its tokens."""
    tokenizer = model.load_tokenizer()
    ids = tokenizer.render(messages, generation_prompt=True)
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + REPLY and (len(ids) == start or ids[-1] not in tokenizer.stop_ids):
            ids.append(int(logits_of(theirs, torch.tensor([ids]))[-1].argmax()))
    return text_of(tokenizer, ids[start:])
