"""`inspect`: what it shows, legibly with and without colour, and what it never touches."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from graftlab.data.jsonl import JsonlData
from graftlab.errors import ConfigError
from graftlab.models.hf import HFModel
from graftlab.objectives.dpo import DPO
from graftlab.objectives.kl_sft import KLSFT
from graftlab.objectives.sft import SFT
from graftlab.packing.plan import Packing
from graftlab.verbs.inspect import Inspection, InspectSpec, run


@pytest.fixture
def spec(tmp_path: Path, qwen2_folder: Path) -> InspectSpec:
    file = tmp_path / "[odd] chats.jsonl"
    rows = [
        [
            {"role": "system", "content": "Be brief [bold]."},
            {"role": "user", "content": "word " * (5 * i + 1)},
            {"role": "assistant", "content": f"Answer {i}"},
        ]
        for i in range(30)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    # A folder with the tokenizer alone: the weights cannot be read because there are none.
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((qwen2_folder / name).read_bytes())
    return InspectSpec(
        model=HFModel(path=str(folder)),
        data=JsonlData(train=str(file)),
        objective=SFT(),
        packing=Packing(max_length=400),
        batch_size=2,
        rows=2,
    )


def printed(spec: InspectSpec, *, terminal: bool) -> tuple[Inspection, str]:
    out = io.StringIO()
    colours = "standard" if terminal else None
    console = Console(file=out, force_terminal=terminal, width=100, color_system=colours)
    return run(spec, console=console), out.getvalue()


def test_tokens_layout_and_budget_are_shown(spec: InspectSpec) -> None:
    found, text = printed(spec, terminal=False)
    assert len(found.shown) == 2
    assert text.count("⟦") == text.count("⟧") >= 2
    assert "\x1b[" not in text
    flat = text.replace("|", "")
    assert "Be brief [bold]." in flat
    assert "⟦Answer " in flat
    for word in ("median", "p95", "system", "assistant", "samples per row", "steps per epoch"):
        assert word in text
    assert "over padding to max_length" in text
    assert "[odd] chats.jsonl:" in text
    budget = found.budget
    assert 0 < budget.over_limit == len(found.longest) < budget.documents
    assert budget.documents == len(found.lengths) + budget.over_limit
    assert sorted(i for row in found.plan for i in row) == list(range(len(found.lengths)))
    assert f"over the limit: {found.longest[0][0]}" in text.replace("\n", "")
    assert budget.gain_over_max_length > budget.gain_over_batch >= 1
    drawn = [line for line in text.splitlines() if "/400, " in line]
    assert 4 <= len(drawn) <= 8 < budget.rows
    assert any("B" in line for line in drawn)


def test_a_terminal_gets_colour_in_place_of_brackets(spec: InspectSpec) -> None:
    _, text = printed(spec, terminal=True)
    assert "\x1b[" in text
    assert "⟦A" not in text


def test_branches_weights_and_tools_are_shown(spec: InspectSpec, tmp_path: Path) -> None:
    def shown(row: object, **model: str) -> str:
        file = tmp_path / "row.jsonl"
        file.write_text(json.dumps(row) + "\n")
        spec.data = JsonlData(train=str(file), valid_fraction=0)
        spec.model = HFModel(path=str(tmp_path / "model"), **model)
        return printed(spec, terminal=False)[1].replace("|", "")

    text = shown({"prompt": "Hi", "chosen": "Good", "rejected": "Bad"})
    prompt, chosen = text.split("\nchosen:\n")
    assert "\nprompt:\n" in prompt
    assert "⟦" not in prompt.split("prompt:")[1]
    first, second = chosen.split("\nrejected:\n")
    assert "⟦Good" in first
    assert "⟦Bad" in second
    ask, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    assert "undesirable:\n" in shown({"messages": [ask, answer], "label": False})
    weighed = shown([ask, {**answer, "weight": 0.25}])
    assert "⟦Ho" in weighed
    assert "⟧×0.25" in weighed
    call = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {"b": 1, "a": 2}}]}
    turns = [ask, call, {"role": "tool", "content": "Three"}, answer]
    tools = [{"name": "look", "parameters": {}}, {"name": "go", "parameters": {}}]
    text = shown({"messages": turns, "tools": tools}, template="chatml")
    assert "\ntools: look, go\n" in text
    runs = [part.split("⟧")[0] for part in text.split("⟦")[2:]]  # the first is the legend
    assert '"arguments": {"b": 1, "a": 2}' in runs[0]
    assert "Three" in text
    assert "Three" not in "".join(runs)


def test_it_says_what_the_objective_will_refuse(spec: InspectSpec, tmp_path: Path) -> None:
    rows = [{"prompt": f"Hi {n}", "chosen": "Good", "rejected": "Bad"} for n in range(9)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec.data = JsonlData(train=str(tmp_path / "pairs.jsonl"), valid_fraction=0)
    refused, shown = printed(spec, terminal=False)
    told = " ".join(refused.notes)
    assert "Training refuses this data: objective=dpo learns from pairs" in told
    assert "objective=sft learns from answers alone, and 9 of 9 rows are others" in told
    spec.objective = DPO()
    taken, same = printed(spec, terminal=False)
    assert "refuses" not in " ".join(taken.notes)
    assert "\nchosen:\n" in same
    assert same[same.index("prompt:") :] == shown[shown.index("prompt:") :]
    spec.objective = SFT()
    spec.data = JsonlData(train=spec.data.train, valid_fraction=0, preference="chosen")
    chosen, alone = printed(spec, terminal=False)
    assert "refuses" not in " ".join(chosen.notes)
    assert "Bad" not in alone.replace("|", "")


def test_it_says_what_training_mixes_in(spec: InspectSpec) -> None:
    spec.objective = KLSFT(anchors="others.jsonl")
    assert "mixes in the rows of objective.anchors" in " ".join(run(spec).notes)


@pytest.mark.parametrize("place", ["system", "user"])
def test_tools_are_counted_by_themselves(spec: InspectSpec, tmp_path: Path, place: str) -> None:
    """Against counts of the same rows without their tools, wherever the template lists them."""
    folder = tmp_path / "model"
    tools = "{% if tools %}\nTools: {{ tools | tojson }}{% endif %}"
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        f"{{% if m.role == '{place}' %}}{tools}{{% endif %}}<|im_end|>\n{{% endfor %}}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(text)
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho")]
    messages = [{"role": role, "content": content} for role, content in turns]
    listed = [{"name": "look", "description": "Finds a word.", "parameters": {"type": "object"}}]

    def counted(row: dict[str, object]) -> dict[str, int]:
        file = tmp_path / "row.jsonl"
        file.write_text(json.dumps(row))
        spec.data = JsonlData(train=str(file), valid_fraction=0)
        return {spread.part: spread.max for spread in run(spec).spreads}

    plain = counted({"messages": messages})
    with_tools = counted({"messages": messages, "tools": listed})
    assert "tools" not in plain
    assert with_tools.pop("tools") == with_tools["total"] - plain["total"] > 10
    assert with_tools | {"total": 0} == plain | {"total": 0}


def test_prompts_of_runtimes_are_compared_with_the_trained_ones(
    spec: InspectSpec, tmp_path: Path
) -> None:
    spec.contract = ["ollama", "llama.cpp", "mlx", "vllm"]
    found, text = printed(spec, terminal=False)
    assert [contract.runtime for contract in found.contracts] == spec.contract
    (count,) = {contract.prompts for contract in found.contracts}
    assert count > 20
    assert all(f"{name}: {count} of {count} prompts as trained" in text for name in spec.contract)
    # What the base's files say of the end of an answer is what vLLM and mlx-lm go by.
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": 0}')
    found, text = printed(spec, terminal=False)
    told = [contract.runtime for contract in found.contracts if contract.breaches]
    assert told == ["mlx", "vllm"]
    assert text.count("! every row: stops: answers end with <|im_end|>, and the base's own") == 2
    with pytest.raises(ConfigError, match=r"contract=lama\.cpp is not one of .*llama\.cpp"):
        replace(spec, contract=["lama.cpp"])


def test_a_missing_file_is_told_before_the_tokenizer_loads(spec: InspectSpec) -> None:
    spec.data.train = "absent.jsonl"
    spec.model = HFModel(path="also-absent")
    with pytest.raises(ConfigError, match=r"data\.train=absent"):
        run(spec)


def test_importing_the_task_is_light() -> None:
    heavy = ["torch", "numpy", "transformers", "rich"]
    code = f"import sys, graftlab.verbs.inspect; print([m for m in {heavy} if m in sys.modules])"
    source = Path(sys.modules["graftlab"].__path__[0]).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
