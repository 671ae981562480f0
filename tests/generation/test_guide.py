"""Guided replies: valid whatever the model and however few the tokens, and the model's own words
as long as there is room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from afm_chats import write_mini_tokenizer
from graftlab.apple.tokenizer import AFMTokenizer
from graftlab.errors import ConfigError
from graftlab.generation.form import Form, form_of
from graftlab.generation.guide import SchemaGuide, make_guide
from graftlab.generation.schema import read_schema
from graftlab.text.json_schema import mismatch
from graftlab.text.load import load_tokenizer
from graftlab.text.tokenizer import Tokenizer
from miniatures import CHATML, save_tokenizer
from schemas import SCHEMAS, closed, random_logits
from slower import mostly_slow
from text_tokenizers import write_sentencepiece, write_tokenizer

HOT = 1.5
SLACK = (0, 1, 5, 40)
"""Tokens beyond the shortest reply."""


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    save_tokenizer(folder / "bytes")
    write_tokenizer(folder / "spaces", CHATML, metaspace="always")
    bare = write_sentencepiece(folder / "bare", markers=True) / "tokenizer.model"
    afm = write_mini_tokenizer(folder / "afm")
    return {
        "afm": AFMTokenizer(afm),
        "bytes": load_tokenizer(folder / "bytes"),
        "spaces": load_tokenizer(folder / "spaces"),
        "bare": load_tokenizer(bare, template="chatml"),
    }


def write(guide: SchemaGuide, generator: torch.Generator) -> tuple[list[int], int]:
    """A reply of the random model at a high temperature, and how often it drew anew."""
    ids: list[int] = []
    again = 0
    while not guide.done and len(ids) < guide.budget:
        logits = random_logits(guide.width, generator) / HOT
        while True:
            mask = guide.mask()
            assert mask.any()
            masked = logits.masked_fill(~mask, -torch.inf)
            token = int(torch.multinomial(masked.softmax(-1), 1, generator=generator))
            if guide.accept(token):
                break
            again += 1
        ids.append(token)
    return ids, again


def unguided(tokenizer: Tokenizer, count: int, generator: torch.Generator) -> str:
    draws = [random_logits(tokenizer.vocab_size, generator) for _ in range(count)]
    ids = [int(torch.multinomial((row / HOT).softmax(-1), 1, generator=generator)) for row in draws]
    return tokenizer.decode(ids)


@pytest.mark.parametrize("kind", mostly_slow(["bytes", "spaces", "bare", "afm"], "bytes", "spaces"))
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_reply_follows_the_schema(
    tokenizers: dict[str, Tokenizer], name: str, kind: str
) -> None:
    tokenizer, schema = tokenizers[kind], read_schema(SCHEMAS[name])
    form = form_of(schema, tokenizer)
    generator = torch.Generator().manual_seed(7)
    texts, drawn_anew = set(), 0
    for slack in SLACK:
        for _ in range(2):
            budget = form.least + slack
            ids, again = write(make_guide(form, budget, width=tokenizer.vocab_size), generator)
            text = tokenizer.decode(ids)
            assert mismatch(text, schema) is None, text
            assert len(ids) <= budget
            assert not set(ids) & set(tokenizer.markers.values()) - set(tokenizer.stop_ids)
            assert mismatch(unguided(tokenizer, budget, generator), schema) is not None
            texts.add(text)
            drawn_anew += again
    assert len(texts) > len(SLACK), "the model has a say"
    assert drawn_anew > 0, "the budget was felt"


def test_all_of_the_budget_may_be_used(tokenizers: dict[str, Tokenizer]) -> None:
    schema = closed(text={"type": "string"})
    form = form_of(schema, tokenizers["bytes"])
    generator = torch.Generator().manual_seed(3)
    lengths = [
        len(write(make_guide(form, 30, width=form_width(form)), generator)[0]) for _ in range(20)
    ]
    assert max(lengths) == 30


def form_width(form: Form) -> int:
    return len(form.vocabulary.bytes)


def test_too_few_tokens_are_refused_with_the_number(tokenizers: dict[str, Tokenizer]) -> None:
    form = form_of(read_schema(SCHEMAS["nested"]), tokenizers["bytes"])
    with pytest.raises(ConfigError, match=f"the shortest takes {form.least}. Raise"):
        make_guide(form, form.least - 1, width=form_width(form))
    assert make_guide(form, form.least, width=form_width(form)).end


def test_a_schema_of_which_no_reply_is_found(
    tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The alphabet of this SentencePiece model is small, but its bytes write anything.
    assert form_of({"const": "漢字"}, tokenizers["bare"]).least > 2
    assert Form({"const": "a" * 100}, tokenizers["bytes"]).least > 10
    monkeypatch.setattr("graftlab.generation.closing.MOST_STEPS", 50)
    form = Form({"const": "a" * 100}, tokenizers["bytes"])
    with pytest.raises(ConfigError, match="no reply was found"):
        form.check(100)


def test_with_room_the_distribution_is_the_models_own(tokenizers: dict[str, Tokenizer]) -> None:
    """Only the schema rules while the budget does not press: no draw is refused."""
    form = form_of(read_schema(SCHEMAS["numbers"]), tokenizers["bytes"])
    generator = torch.Generator().manual_seed(5)
    again = [write(make_guide(form, 2000, width=form_width(form)), generator)[1] for _ in range(20)]
    assert sum(again) == 0


@pytest.mark.parametrize("kind", ["bytes", "spaces", "bare", "afm"])
def test_masks_allow_all_that_the_schema_does_and_no_more(
    tokenizers: dict[str, Tokenizer], kind: str
) -> None:
    """Against the matcher itself, asked about each token; where text is forced, too."""
    tokenizer = tokenizers[kind]
    form = form_of(read_schema(SCHEMAS["nested"]), tokenizer)
    guide = make_guide(form, form.least + 30, width=tokenizer.vocab_size)
    generator = torch.Generator().manual_seed(2)
    forced = 0
    while not guide.done:
        mask = guide.mask()
        if not guide.refused:
            alone = [guide.matcher.validate_tokens([index]) for index in range(len(mask))]
            told = [data is not None for data in form.vocabulary.bytes]
            assert mask.tolist() == [bool(a and t) for a, t in zip(alone, told, strict=True)]
            forced += bool(guide.matcher.compute_ff_bytes())
        guide.accept(int(torch.multinomial(mask.float(), 1, generator=generator)))
    assert forced > 5


def test_a_refused_token_is_masked_and_the_end_comes_at_last(
    tokenizers: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers["bytes"]
    form = form_of(closed(text={"type": "string"}), tokenizer)
    guide = make_guide(form, form.least, width=form_width(form))
    for token in form.vocabulary.spell(b'{"text":"') or ():
        assert guide.accept(token)
    (letter,) = form.vocabulary.spell(b"a") or ()
    assert guide.mask()[letter]
    assert not guide.accept(letter)
    assert not guide.mask()[letter]
    for token in guide.mask().nonzero().flatten().tolist()[:20]:
        if guide.mask()[token] and token != guide.end[0]:
            assert not guide.accept(token)
    assert guide.mask().nonzero().flatten().tolist() == guide.end[:1]
    for token in list(guide.end):
        assert guide.accept(token)
    assert guide.done


def test_rollback(tokenizers: dict[str, Tokenizer]) -> None:
    form = form_of(read_schema(SCHEMAS["array"]), tokenizers["bytes"])
    generator = torch.Generator().manual_seed(9)
    for _ in range(5):
        budget = form.least + 10
        ids, _ = write(make_guide(form, budget, width=form_width(form)), generator)
        guide = make_guide(form, budget, width=form_width(form))
        masks = []
        for token in ids:
            masks.append(guide.mask())
            assert guide.accept(token)
        assert guide.done
        for count in (1, 3, len(ids) - 4):
            guide.rollback(count)
            del ids[-count:]
            assert not guide.done
            assert torch.equal(guide.mask(), masks[len(ids)])
        assert not ids
        rest, _ = write(guide, generator)
        assert mismatch(form.text(rest).decode(), form.schema) is None


def test_a_reply_ends_with_its_last_brace_or_the_stop_token(
    tokenizers: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers["bytes"]
    guide = make_guide(form_of({"type": "integer"}, tokenizer), 10, width=500)
    assert not guide.mask()[list(tokenizer.stop_ids)].any()
    (digit,) = guide.form.vocabulary.spell(b"4") or ()
    assert guide.accept(digit)
    assert not guide.done
    assert guide.mask()[tokenizer.stop_ids[0]]
    assert guide.accept(tokenizer.stop_ids[0])
    assert guide.done
    guide.rollback(1)
    assert not guide.done
    assert guide.accept(digit)
    whole = form_of({"type": "object", "maxProperties": 0}, tokenizer)
    guide = make_guide(whole, 5, width=form_width(whole))
    for token in whole.vocabulary.spell(b"{}") or ():
        assert not guide.done
        assert guide.accept(token)
    assert guide.done


def test_masks_are_as_wide_as_the_models_logits(tokenizers: dict[str, Tokenizer]) -> None:
    form = form_of({"type": "integer"}, tokenizers["bytes"])
    narrow, wide = (make_guide(form, 5, width=width).mask() for width in (form_width(form), 777))
    assert wide.shape == (777,)
    assert torch.equal(wide[: len(narrow)], narrow)
    assert not wide[len(narrow) :].any()


def test_white_space_is_allowed_but_not_for_ever(tokenizers: dict[str, Tokenizer]) -> None:
    form = form_of(closed(a={"type": "integer"}), tokenizers["bytes"])
    spell = form.vocabulary.spell

    def taken(text: str) -> bool:
        guide = make_guide(form, 10_000, width=form_width(form))
        return all(
            bool(guide.mask()[token]) and guide.accept(token)
            for byte in text.encode()
            for token in spell(bytes([byte])) or ()
        )

    value = {"a": 1}
    for style in (json.dumps(value), json.dumps(value, indent=2), '{"a":1}'):
        assert taken(style)
    assert not taken('{"a":  1}')
    assert not taken('{\n\n"a":1}')


def test_the_line_end_of_apples_vocabulary_is_white_space_only(
    tokenizers: dict[str, Tokenizer],
) -> None:
    tokenizer = tokenizers["afm"]
    (line,) = tokenizer.encode_text(["\n"])[0]
    form = form_of(closed(a={"type": "string"}), tokenizer)
    guide = make_guide(form, 100, width=form_width(form))
    for token in form.vocabulary.spell(b"{") or ():
        assert guide.accept(token)
    assert guide.mask()[line]
    assert guide.accept(line)
    for token in form.vocabulary.spell(b'"a":"x') or ():
        assert guide.accept(token)
    assert not guide.mask()[line]
    for token in form.vocabulary.spell(b'\\n"}') or ():
        assert guide.accept(token)
    ids = [*(form.vocabulary.spell(b"{") or ()), line]
    assert guide.done
    assert tokenizer.decode(ids) == "{\n"


def test_a_path_of_many_optional_properties_is_left_out(tokenizers: dict[str, Tokenizer]) -> None:
    form = form_of(read_schema(SCHEMAS["optional"]), tokenizers["bytes"])
    assert form.text(make_guide(form, 100, width=form_width(form)).end) == b'{"p5":"","p11":""}'


def test_forms_and_vocabularies_are_built_once(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    save_tokenizer(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizers["bytes"].fingerprint
    schema = {"type": "integer"}
    assert form_of(schema, again) is form_of(dict(schema), tokenizers["bytes"])
    other = form_of({"type": "null"}, again)
    assert other.vocabulary is form_of(schema, again).vocabulary
