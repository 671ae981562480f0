"""`target=ollama`: a file that llama.cpp reads, and a Modelfile that asks it as it was trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from afm_adapters import hf_run, logits
from chat_families import OTHERS
from graftlab.adapters.artifact import find_artifact
from graftlab.errors import ConfigError, ModelError
from graftlab.exports.modelfile import Modelfile
from graftlab.exports.ollama import Ollama, stops
from graftlab.exports.source import Trained, load
from graftlab.exports.turns import CONVERSATIONS
from graftlab.models.base import ModelSpec
from graftlab.models.gguf.file import read_gguf
from graftlab.registry import restore
from graftlab.text.tokenizer import Tokenizer
from miniatures import CHATML
from peft_exports import IDS
from tolerance import assert_same

pytest.importorskip("gguf")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning"),
]


def exported(adapter: Trained, folder: Path, **keys: Any) -> tuple[Modelfile, list[str]]:
    """The Modelfile that was written, read back, and what is told of the export."""
    folder.mkdir()
    target = Ollama(**{"quant": "f32", **keys})
    target.check_files()
    notes = target.check(adapter)
    target.write(adapter, folder)
    facts = target.verify(adapter, folder)
    return Modelfile.read((folder / "Modelfile").read_text(encoding="utf-8")), notes + facts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_run(tmp_path_factory.mktemp("llama"), "llama")


def tokenizer_of(run: Path) -> Tokenizer:
    adapter = find_artifact(str(run)).require_adapter()
    return restore(ModelSpec, adapter.run()["model"]).load_tokenizer(adapter.folder)


def test_the_folder_holds_all_that_ollama_is_told(run: Path, tmp_path: Path) -> None:
    (run.parent / "llama" / "LICENSE").write_text("MIT\r\n\r\nPermission is granted.\n")
    keys = {"temperature": 0.3, "top_p": 0.9, "top_k": 40, "num_ctx": 8192, "system": 'Be "brief".'}
    made, told = exported(load(str(run)), tmp_path / "out", **keys)
    assert made.source == "./model.gguf"
    assert made.adapter is None
    assert made.system == 'Be "brief".'
    assert made.licenses == ("MIT\n\nPermission is granted.\n",)
    assert made.parameters == (
        *(("temperature", "0.3"), ("top_p", "0.9"), ("top_k", "40"), ("num_ctx", "8192")),
        ("stop", "<|im_end|>"),
    )
    assert made.template is not None
    assert '{{- else if eq .Role "user" }}' in made.template
    assert made.comments == ("ollama create NAME -f Modelfile",)
    file = read_gguf(tmp_path / "out" / "model.gguf")
    assert file.metadata["tokenizer.chat_template"] == CHATML
    assert file.metadata["general.architecture"] == "llama"
    assert f"TEMPLATE: {len(CONVERSATIONS)} conversations as the chat template's" in told
    assert any("all" in fact and "read back equal" in fact for fact in told)
    assert told[-1] == "Modelfile read back; Ollama itself was not asked"


def with_template(run: Path, template: str, folder: Path) -> Trained:
    """The same adapter, as trained with another chat template."""
    shutil.copytree(run, folder / "run")
    (folder / "run" / "adapter" / "chat_template.jinja").write_text(template, encoding="utf-8")
    return load(str(folder / "run"))


def test_without_keys_only_what_the_template_says_is_written(run: Path, tmp_path: Path) -> None:
    made, _ = exported(load(str(run)), tmp_path / "out", license=str(tmp_license(tmp_path)))
    assert made.system is None
    assert made.parameters == (("stop", "<|im_end|>"),)
    assert made.licenses == ("Ours",)


def tmp_license(folder: Path) -> Path:
    (folder / "terms").write_text("Ours")
    return folder / "terms"


def test_values_that_ollama_could_not_read_leave_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'SYSTEM holds """, which a Modelfile cannot'):
        exported(load(str(run)), tmp_path / "out", system='Say """.')
    for keys, message in (
        ({"temperature": -1}, r"target\.temperature=-1"),
        ({"top_p": 0}, r"target\.top_p=0"),
        ({"top_k": -1}, r"target\.top_k"),
        ({"num_ctx": 0}, r"target\.num_ctx"),
        ({"quant": "q3"}, r"target\.quant=q3"),
        ({"content": "base"}, r"target\.content=base"),
        ({"content": "adapter"}, r"target\.base=NAME"),
        ({"base": "smollm2"}, r"target\.base=NAME"),
    ):
        with pytest.raises(ConfigError, match=message):
            Ollama(**keys)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"target\.license=absent: there is no such file"):
        Ollama(license="absent").check_files()


def test_a_template_that_go_cannot_tell_is_left_out_and_said(run: Path, tmp_path: Path) -> None:
    adapter = with_template(run, OTHERS["numbered"][0].template, tmp_path)
    made, told = exported(adapter, tmp_path / "out")
    assert made.template is None
    (note,) = [line for line in told if line.startswith("no TEMPLATE")]
    assert "llama-server -m model.gguf --jinja" in note
    assert made.comments[-1] == note


def test_a_system_text_that_the_template_has_no_place_for(run: Path, tmp_path: Path) -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHATML
    )
    adapter = with_template(run, refusing, tmp_path)
    with pytest.raises(ConfigError, match=r"target\.system: the chat template has no system turn"):
        exported(adapter, tmp_path / "out", system="Be brief.")
    _, told = exported(adapter, tmp_path / "other")
    assert "the chat template has no system turn: Ollama leaves such texts out" in told


def test_every_token_that_ends_an_answer_is_a_stop(run: Path, tmp_path: Path) -> None:
    tokenizer, base = tokenizer_of(run), tmp_path
    (base / "config.json").write_text("{}")
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert tokenizer.stop == "<|im_end|>"
    assert stops(tokenizer, base) == ["<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize(
    "lora", [{}, {"rslora": True}, {"alpha_pattern": {"v_proj": 9.0}}], ids=str
)
def test_an_adapter_of_its_own_has_its_scale_in_its_weights(
    lora: dict[str, Any], tmp_path: Path
) -> None:
    from peft import LoraConfig, PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM

    run = hf_run(tmp_path / "made", "llama", **lora)
    made, told = exported(load(str(run)), tmp_path / "out", content="adapter", base="llama:1b")
    assert (made.source, made.adapter) == ("llama:1b", "./adapter")
    assert "needs Ollama before 0.34.1" in made.comments[1]
    assert "Ollama 0.34.1 and later refuse ADAPTER: target.content=merged is for all" in told
    assert not (tmp_path / "out" / "model.gguf").exists()
    config = PeftConfig.from_pretrained(str(tmp_path / "out" / "adapter"))
    assert isinstance(config, LoraConfig)
    assert (config.lora_alpha, config.use_rslora) == (config.r, False)
    base = AutoModelForCausalLM.from_pretrained(str(tmp_path / "made" / "llama"))
    with torch.no_grad():
        model = PeftModel.from_pretrained(base, str(tmp_path / "out" / "adapter"))
        assert_same(model(input_ids=IDS).logits, logits(run, IDS))


def test_what_ollama_does_not_serve_beside_a_base_is_refused(tmp_path: Path) -> None:
    adapter = load(str(hf_run(tmp_path, "llama", dora=True)))
    with pytest.raises(ModelError, match="Ollama does not serve use_dora beside a base"):
        Ollama(content="adapter", base="llama").check(adapter)


@pytest.mark.slow
def test_go_and_llama_cpp_give_the_ids_that_were_trained(
    run: Path, tmp_path: Path, render: Callable[..., list[str]]
) -> None:
    """What Ollama does with the folder: Go writes the prompt, llama.cpp makes tokens of it."""
    from llama_client import serving

    made, _ = exported(load(str(run)), tmp_path / "out")
    tokenizer = tokenizer_of(run)
    texts = render(
        [
            (made.template, [{"Role": m.role, "Content": m.content} for m in messages])
            for messages in CONVERSATIONS.values()
        ]
    )
    with serving(tmp_path / "out" / "model.gguf") as llama:
        for text, messages in zip(texts, CONVERSATIONS.values(), strict=True):
            asked = {"content": text, "add_special": True, "parse_special": True}
            ids = llama.ask("/tokenize", asked)["tokens"]
            assert ids == tokenizer.render(messages, generation_prompt=True)
