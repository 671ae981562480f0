"""The prompt contract: no false alarm, and every planted mismatch named with its row and a cure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Raw
from tokenizers import processors

from chat_families import FAMILIES, OTHERS, Family, write_vocabulary
from graftlab.exports.contract.compare import RUNTIMES, Contract, check, compare
from graftlab.exports.contract.renderers import Ollama
from graftlab.exports.turns import Turns, turns_of
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from graftlab.types import Conversation, Message
from text_tokenizers import CHATML, TEMPLATES, write_sentencepiece


def user(text: str) -> Message:
    return Message("user", text)


def answer(text: str, **more: str) -> Message:
    return Message("assistant", text, **more)


def row(line: int, *messages: Message, **more: object) -> Conversation:
    return Conversation(messages, "rows.jsonl", line, **more)  # type: ignore[arg-type]


ROWS = [
    row(1, user("Hi"), answer("Hello."), user("Who?\n\nAnd when?"), answer("He.")),
    row(2, Message("system", "Be {{ brief }}."), user("Hi"), answer("Ho")),
    row(3, Message("system", "Sing."), user("a"), answer("b"), user("c"), answer("d")),
]
PROMPTS = 5
THOUGHT = row(9, user("Hi"), answer("<think>\nk\n</think>\n\na"), user("b"), answer("c"))
CALL = {"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}
LOOK = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
TOOLS = row(
    7,
    *(user("Look"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "x")),
    answer("Three"),
    tools=({"type": "function", "function": LOOK},),
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def families(vocabulary: Path) -> dict[str, tuple[Tokenizer, Turns]]:
    made = {name: family.load(vocabulary) for name, family in FAMILIES.items()}
    return {name: (one, turns_of(one, adds_bos=False)) for name, one in made.items()}


def begun(vocabulary: Path, folder: Path) -> Path:
    """The same tokenizer, which puts BOS before every text."""
    shutil.copytree(vocabulary, folder)
    file = str(folder / "tokenizer.json")
    raw = Raw.from_file(file)
    place = raw.token_to_id("<s>")
    raw.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", place)])
    raw.save(file)
    return folder


def found(contracts: list[Contract]) -> dict[str, set[tuple[str, str]]]:
    """Renderer -> (row, kind of mismatch)."""
    return {c.runtime: {(breach.where, breach.kind) for breach in c.breaches} for c in contracts}


def test_prompts_of_families_are_as_trained(
    families: dict[str, tuple[Tokenizer, Turns]],
) -> None:
    prompts = set()
    for name, (tokenizer, _) in families.items():
        contracts = compare(("ollama", "llama.cpp"), ROWS, tokenizer)
        assert not any(found(contracts).values()), name
        prompts |= {contract.prompts for contract in contracts}
    assert prompts == {PROMPTS, 2}, "two where a template takes no system turn"


BEGUN = ("llama3", "llama2", "gemma3", "mistral-v0.3", "chatml", "qwen3")
UNBEGUN = ("chatml", "qwen3")


@pytest.mark.parametrize("name", BEGUN)
def test_bos_before_every_text(name: str, vocabulary: Path, tmp_path: Path) -> None:
    """Where the template writes it too, it is there once; where training has none, that is told."""
    tokenizer = FAMILIES[name].load(begun(vocabulary, tmp_path / "begun"))
    contracts = compare(RUNTIMES, ROWS, tokenizer)
    told = {(f"rows.jsonl:{row.line}", "BOS") for row in ROWS} if name in UNBEGUN else set()
    assert found(contracts) == {"ollama": told, "llama.cpp": told, "mlx": set(), "vllm": set()}


def changed(turns: Turns, pair: tuple[str, str], change: Callable[[str], str]) -> Turns:
    return replace(turns, between={**turns.between, pair: change(turns.between[pair])})


def without_stop(turns: Turns, stop: str) -> Turns:
    return changed(turns, ("assistant", "user"), lambda text: text.replace(stop, "", 1))


FAULTS: dict[str, tuple[Callable[[Turns, str], Turns], set[str], set[str]]] = {
    "BOS twice": (
        lambda turns, _: replace(
            turns,
            between={
                (was, role): f"<s>{text}" if not was else text
                for (was, role), text in turns.between.items()
            },
        ),
        {f"rows.jsonl:{row.line}" for row in ROWS},
        {"BOS"},
    ),
    "a line end too many": (
        lambda turns, _: changed(turns, ("user", ""), lambda text: f"{text}\n"),
        {f"rows.jsonl:{row.line}" for row in ROWS},
        {"white space"},
    ),
    "no token behind an answer": (without_stop, {"rows.jsonl:1", "rows.jsonl:3"}, {"text"}),
    "an answer of another role": (
        lambda turns, _: changed(turns, ("user", "assistant"), lambda text: f"{text}Bot: "),
        {"rows.jsonl:1", "rows.jsonl:3"},
        {"text"},
    ),
    "no system turn": (
        lambda turns, _: replace(
            turns,
            between={pair: t for pair, t in turns.between.items() if "system" not in pair},
            late=None,
        ),
        {"rows.jsonl:2", "rows.jsonl:3"},
        {"text"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_a_template_is_named_with_its_rows(
    fault: str, families: dict[str, tuple[Tokenizer, Turns]]
) -> None:
    """In each of the families; rows without the place that is changed stay quiet."""
    plant, lines, kinds = FAULTS[fault]
    tried = 0
    for name, (tokenizer, turns) in families.items():
        here = lines if turns.has_system else lines & {"rows.jsonl:1"}  # no other rows are trained
        if not here:
            continue
        runtime = Ollama(tokenizer, plant(turns, tokenizer.stop), adds_bos=False)
        contract = check(runtime, ROWS, tokenizer)
        assert {breach.where for breach in contract.breaches} == here, name
        assert {breach.kind for breach in contract.breaches} == kinds, name
        assert all(breach.cure and "training has" in breach.what for breach in contract.breaches)
        tried += 1
    assert tried >= 24


@pytest.mark.parametrize("name", ["llama3", "gemma", "gemma3", "command-r"])
def test_white_space_that_a_template_takes_is_told(name: str, vocabulary: Path) -> None:
    padded = row(4, user(" Hi \n"), answer("Ho"))
    contracts = compare(RUNTIMES, [*ROWS, padded], FAMILIES[name].load(vocabulary))
    assert found(contracts) == {
        "ollama": {("rows.jsonl:4", "white space")}, "llama.cpp": set(), "mlx": set(), "vllm": set()
    }  # fmt: skip
    line = list(contracts[0].lines())[1]
    assert line.startswith("! rows.jsonl:4: white space: from token ")
    assert line.endswith("What helps: take the white space from the ends of the rows' texts.")


def test_tools_thoughts_and_arguments(vocabulary: Path) -> None:
    def of(template: str, *rows: Conversation) -> dict[str, set[tuple[str, str]]]:
        family = Family(template, ("<think>", "</think>"))
        return found(compare(RUNTIMES, rows, family.load(vocabulary)))

    tools = {("rows.jsonl:7", "tools")}
    quiet: dict[str, set[tuple[str, str]]] = {name: set() for name in RUNTIMES}
    assert of(TEMPLATES["qwen3-tools"], *ROWS, THOUGHT, TOOLS) == {**quiet, "ollama": tools}
    # It joins arguments to a text, and those runtimes hand it objects.
    refused = of(TEMPLATES["text-arguments"], TOOLS)
    assert refused["ollama"] == refused["mlx"] == refused["vllm"] == tools
    beside = row(8, user("Hi"), answer("a", reasoning="deep"), user("b"), answer("c"))
    shown = CHATML.replace("m.content", "(m.reasoning_content or '') + m.content")
    assert of(shown, beside) == {**quiet, "ollama": {("rows.jsonl:8", "thoughts")}}


def test_what_llama_cpp_itself_does_otherwise(vocabulary: Path) -> None:
    """It writes an empty description into tools that have none, and asks templates for calls."""
    pytest.importorskip("xllamacpp")
    bare = {key: value for key, value in LOOK.items() if key != "description"}
    tools = replace(TOOLS, tools=({"type": "function", "function": bare},))
    for template, row, kinds in (
        (TEMPLATES["qwen3-tools"], TOOLS, set()),
        (TEMPLATES["qwen3-tools"], tools, {"tools"}),
    ):
        tokenizer = Family(template, ("<think>", "</think>")).load(vocabulary)
        (contract,) = compare(["llama.cpp"], [row], tokenizer)
        assert contract.by == "llama.cpp's own server"
        assert {breach.kind for breach in contract.breaches} == kinds
    unread = Family(TEMPLATES["text-arguments"]).load(vocabulary)
    (contract,) = compare(["llama.cpp"], ROWS, unread)
    assert contract.unserved.startswith("llama-server does not start with this chat template")


def test_a_day_of_its_own_is_not_the_day_of_asking(vocabulary: Path) -> None:
    tokenizer = OTHERS["llama3.2"][0].load(vocabulary)
    quiet = compare(RUNTIMES, ROWS, tokenizer)
    assert quiet[0].unserved.startswith("no TEMPLATE: it writes the date of the day")
    assert "llama-server --jinja" in next(quiet[0].lines())
    assert not any(contract.breaches for contract in quiet)
    tokenizer.date = "2020-02-02"
    try:
        dated = found(compare(RUNTIMES[1:], ROWS, tokenizer))
    finally:
        tokenizer.date = None
    rows = {(f"rows.jsonl:{row.line}", "the date") for row in ROWS}
    assert dated == dict.fromkeys(RUNTIMES[1:], rows)


def test_vllm_hands_lists_to_templates_that_go_through_them(vocabulary: Path) -> None:
    parts = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}"
        "{{ m.content }}{% else %}{% for part in m.content %}{{ part.text }}WRONG{% endfor %}"
        "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    right = Family(parts.replace("WRONG", "")).load(vocabulary)
    assert not any(found(compare(RUNTIMES, ROWS, right)).values())
    wrong = found(compare(RUNTIMES, ROWS, Family(parts.replace("WRONG", "!")).load(vocabulary)))
    assert {kind for _, kind in wrong.pop("vllm")} == {"text"}
    assert not any(wrong.values())


def test_a_stop_that_the_base_does_not_name_is_told(vocabulary: Path, tmp_path: Path) -> None:
    tokenizer = FAMILIES["chatml"].load(vocabulary)
    for name, end, told in (
        ("config", 2, True),
        ("generation_config", tokenizer.stop_ids[0], False),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"eos_token_id": end}))
        contracts = compare(RUNTIMES, ROWS, tokenizer, tmp_path)
        stops = {("every row", "stops")} if told else set()
        assert found(contracts) == {
            "ollama": set(),
            "llama.cpp": set(),
            "mlx": stops,
            "vllm": stops,
        }
        assert all(f"{PROMPTS} of {PROMPTS} prompts" in next(c.lines()) for c in contracts)


def test_a_sentencepiece_model_is_as_trained(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_sentencepiece(tmp_path, markers=True), template="chatml")
    contracts = compare(RUNTIMES, ROWS, tokenizer)
    assert [(c.prompts, c.breaches) for c in contracts] == [(PROMPTS, [])] * len(RUNTIMES)
