"""The reference pass: exact, computed once, told apart by what decides it, and found damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftlab.adapters.attach import attach
from graftlab.adapters.lora import Lora
from graftlab.errors import DataError
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kto import KTO
from graftlab.objectives.policy import Policy
from graftlab.packing.mismatched import mismatched
from graftlab.text.encode import TokenSet
from graftlab.tracking.folder import RunFolder
from graftlab.training.reference import FILE, _Pass, resolve_reference
from graftlab.training.setup import Data, Setup, resolve_setup
from graftlab.training.spec import TrainSpec
from graftlab.training.start import run
from graftlab.types import IGNORE
from pairs import answer_set, one_batch, pair_set, some_answers, some_pairs


@pytest.fixture(autouse=True)
def passes(monkeypatch, tmp_path) -> list[str]:
    """An empty cache, and the names of the sets that were passed over."""
    monkeypatch.setenv("GRAFTLAB_CACHE", str(tmp_path / "cache"))
    found: list[str] = []
    honest = _Pass._compute

    def counted(self: _Pass, tokens: TokenSet, name: str) -> np.ndarray:
        found.append(name)
        return honest(self, tokens, name)

    monkeypatch.setattr(_Pass, "_compute", counted)
    return found


def six_rows(spec: TrainSpec, *_: Any, **__: Any) -> Data:
    pairs, answers = some_pairs(6), some_answers(6)
    tokens = pair_set(pairs) if spec.objective.takes == "pairs" else answer_set(answers)
    return Data(spec.model.load_tokenizer(), tokens, None, [])


@pytest.fixture
def spec(spec, monkeypatch) -> TrainSpec:
    monkeypatch.setattr("graftlab.training.setup.read_data", six_rows)
    return replace(spec, objective=DPO())


def resolved(spec: TrainSpec, base: Any) -> Setup:
    """The run before it trains, with its reference."""
    setup = resolve_setup(spec, RunFolder(Path(spec.run_dir)))
    adapter = attach(base, spec.lora, seed=0, dtype=torch.float32)
    resolve_reference(setup, base, adapter)
    adapter.detach()
    return setup


def test_it_is_what_the_base_says_and_is_computed_once(spec, make_base, passes):
    base = make_base()
    found = resolved(spec, base).data.train.reference
    with torch.no_grad(), base.evaluating():
        wanted, _ = Policy(base, None).segment_logps(one_batch(pair_set(some_pairs(6))))
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)
    assert (found[::3] == 0).all()  # a prompt has no label
    again = resolved(spec, base).data.train.reference
    assert np.array_equal(again, found)
    assert passes == ["train"]


def test_another_adapter_or_precision_is_another_reference(spec, make_base, passes, tmp_path):
    trained = replace(spec, run_dir=str(tmp_path / "first"), epochs=3, lr=5e-3)
    run(trained)
    goes_on = replace(spec, lora=Lora(from_run=trained.run_dir))
    base = make_base()
    one, other = resolved(spec, base), resolved(goes_on, base)
    assert passes == ["train", "train"]
    apart = np.abs(one.data.train.reference - other.data.train.reference).max()
    assert apart > 0.01


def test_a_damaged_file_is_named_and_made_anew(spec, make_base, passes, capsys, tmp_path):
    base = make_base()
    found = resolved(spec, base).data.train.reference
    (file,) = (tmp_path / "cache").glob(f"reference-*/{FILE}")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = resolved(spec, base).data.train.reference
    assert np.array_equal(again, found)
    assert passes == ["train", "train"]
    assert str(file) in capsys.readouterr().err
    resolved(spec, base)
    assert passes == ["train", "train"]


def test_kto_mixes_answers_and_passes_over_them_too(spec, make_base, passes):
    setup = resolved(replace(spec, objective=KTO()), make_base())
    assert passes == ["train", "train, answers mixed"]
    mixed = setup.plan.train.mismatched
    assert len(mixed.reference) == 6
    batch = next(iter(setup.plan.train))
    assert len(batch.mismatched) == 1
    assert batch.mismatched[0].reference is not None


def test_prompts_keep_their_place_beside_other_answers():
    answers = some_answers(5)
    tokens = mismatched(answer_set(answers), max_length=100)
    assert len(tokens) == 5
    for index in range(5):
        prompt, (_, other, _) = answers[index][0], answers[index - 1]
        document = tokens[index]
        assert document.input_ids.tolist() == [*prompt, *other[:-1]]
        assert document.labels.tolist() == [*[IGNORE] * (len(prompt) - 1), *other]
    long = ([5] * 20, [6] * 3, True), ([7] * 3, [8] * 20, False)  # whose prompt meets whose answer
    short = mismatched(answer_set([*long]), max_length=22)
    assert short.lengths.tolist() == [22, 5]
    assert (short.num_labels > 0).all()


def test_a_single_answer_has_no_other_to_be_mixed_with() -> None:
    with pytest.raises(DataError, match="a single row: give two or more"):
        mismatched(answer_set(some_answers(5)[:1]), max_length=100)


def test_mixed_answers_of_trees_read_the_branch_that_they_continue():
    pairs = some_pairs(3)
    tokens = mismatched(pair_set(pairs), max_length=100)
    prompt, (_, chosen, _) = pairs[0][0], pairs[2]
    assert tokens[0].input_ids.tolist() == [*prompt, *chosen[:-1]]
