"""Draft pairs: weights go where the program names them, and half a pair or a guess is refused."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from afm_adapters import afm_run
from afm_assets import make_assets
from graftlab.apple.exports import blob
from graftlab.apple.exports.draftpair import cluster, pair_of, read_program
from graftlab.apple.exports.fmadapter import FMAdapter
from graftlab.apple.exports.source import draft_state
from graftlab.apple.exports.verify import verify
from graftlab.errors import ConfigError, ModelError
from graftlab.verbs.export import Exported, ExportSpec, run

FP16, UINT4 = 1, 11


def parameters() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "embedding.weight": torch.randn(10, 8, generator=draw),
        "layers.layer_0.norm.weight": torch.rand(8, generator=draw),
        "layers.layer_0.attention.qkv.wrapped.linear.weight": torch.randn(9, 8, generator=draw),
    }


class Template:
    """draft.mil and its weights, as a compiled Core ML program has them."""

    def __init__(self) -> None:
        self.program = ["program(1.3)", "{", "func main<ios18>(tensor<int32, [1, 4]> ids) {"]
        self.content = bytearray(64)
        self.count = 0

    def record(self, dtype: int, data: bytes, padding: int = 0) -> int:
        self.content += b"\0" * (-len(self.content) % 64)
        place = len(self.content)
        head = struct.pack("<IIQQQ32x", 0xDEADBEEF, dtype, len(data), place + 64, padding)
        self.content += head + data
        self.count += 1
        return place

    def at(self, place: int) -> str:
        path = 'path = string("@model_path/weights/weight.bin")'
        return f"(BLOBFILE({path}, offset = uint64({place})))"

    def half(self, name: str, shape: list[int]) -> None:
        place = self.record(FP16, bytes(2 * int(np.prod(shape))))
        kind = f"tensor<fp16, {shape}>"
        self.program.append(
            f'{kind} v{place} = const()[name = string("{name}"), val = {kind}{self.at(place)}];'
        )

    def palette(self, name: str, shape: list[int], colours: int = 16) -> None:
        size = int(np.prod(shape))
        codes = self.record(UINT4, bytes((size + 1) // 2), 4 * (size % 2))
        lut = self.record(FP16, bytes(2 * colours))
        self.program.append(
            f'tensor<fp16, {shape}> v{codes} = constexpr_lut_to_dense()[name = string("{name}"), '
            f"indices = tensor<uint4, {shape}>{self.at(codes)}, "
            f"lut = tensor<fp16, [1, 1, {colours}, 1]>{self.at(lut)}];"
        )

    def write(self, folder: Path, name: str = "weights_template.bin") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.content[:8] = struct.pack("<II", self.count, 2)
        (folder / name).write_bytes(self.content)
        text = "\n".join([*self.program, "} -> (logits);", "}"])
        (folder / "draft.mil").write_text(text, encoding="utf-8")
        return folder


def template() -> Template:
    made = Template()
    made.half("rope_table_to_fp16", [4, 8])
    made.half("model_embedding_weight_to_fp16", [10, 8])
    made.half("layers_layer_0_norm_weight_to_fp16", [8])
    made.palette("layers_layer_0_attention_qkv_linear_weight_to_fp16_palettized", [9, 8, 1, 1])
    return made


def test_payloads_are_replaced_in_place(tmp_path):
    source = template().write(tmp_path / "toolkit")
    pair = pair_of(parameters(), source)
    out = tmp_path / "out"
    out.mkdir()
    pair.write(out)
    assert pair.verify(out) == 3
    before, after = ((folder / name).read_bytes() for folder, name in (
        (source, "weights_template.bin"), (out, "draft_weights.bin"),
    ))  # fmt: skip
    assert len(after) == len(before)
    assert (out / "draft.mil").read_bytes() == (source / "draft.mil").read_bytes()
    records = blob.read(out / "draft_weights.bin")
    assert not blob.load(out / "draft_weights.bin", records[0]).any(), "not a weight of the draft"
    found = blob.load(out / "draft_weights.bin", records[1])
    assert np.array_equal(found, parameters()["embedding.weight"].half().numpy().ravel())
    palette = blob.load(out / "draft_weights.bin", records[4])
    codes = blob.load_codes(out / "draft_weights.bin", records[3])
    wanted = parameters()["layers.layer_0.attention.qkv.wrapped.linear.weight"].numpy().ravel()
    assert np.sqrt(((palette[codes] - wanted) ** 2).mean()) < 0.15 * wanted.std()


def test_a_weight_that_is_used_twice_is_replaced_twice(tmp_path):
    made = template()
    made.half("head_embedding_weight_to_fp16", [10, 8])
    pair = pair_of(parameters(), made.write(tmp_path / "toolkit"))
    assert len(pair.matched) == 4


def test_the_program_of_older_targets_is_read(tmp_path):
    text = (
        'tensor<fp16, [2]> w = const()[name = tensor<string, []>("w"), val = tensor<fp16, [2]>'
        '(BLOBFILE(path = tensor<string, []>("@model_path/w.bin"), '
        "offset = tensor<uint64, []>(128)))];"
    )
    (tmp_path / "draft.mil").write_text(text)
    (weight,) = read_program(tmp_path / "draft.mil")
    assert (weight.name, weight.shape, weight.places) == ("w", (2,), {"val": 128})


def change(state: Mapping[str, torch.Tensor], **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**state, **{name.replace("__", "."): t for name, t in tensors.items()}}


MISFITS = {
    "a name": (change(parameters(), extra__weight=torch.ones(2)), "extra_weight has no weight"),
    "a shape": (change(parameters(), embedding__weight=torch.ones(8, 10)), r"has shape \(10, 8\)"),
    "a size": (
        change(parameters(), embedding__weight=torch.full((10, 8), 1e6)),
        "half precision cannot hold",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_nothing_is_guessed(case, tmp_path):
    state, message = MISFITS[case]
    source = template().write(tmp_path / "toolkit")
    with pytest.raises(ModelError, match=f"does not take this draft: .*{message}.*none is guessed"):
        pair_of(state, source)


def test_several_palettes_and_lost_records_are_refused(tmp_path):
    made = template()
    made.palette("more_weight", [4, 4], colours=32)
    made.program.append(
        'x = const()[name = string("lost_weight"), val = tensor<fp16, [2]>' + made.at(99968) + "];"
    )
    state = change(parameters(), more__weight=torch.ones(4, 4), lost__weight=torch.ones(2))
    with pytest.raises(ModelError, match=r"has several palettes.*99968, where .* no record"):
        pair_of(state, made.write(tmp_path / "toolkit"))


@pytest.mark.parametrize("missing", ["draft.mil", "weights_template.bin"])
def test_half_a_pair_is_refused(missing, tmp_path):
    source = template().write(tmp_path / "toolkit")
    (source / missing).unlink()
    with pytest.raises(ModelError, match="a draft needs both"):
        pair_of(parameters(), source)


def test_a_palette_stands_for_its_values():
    values = np.repeat([-2.0, 0.5, 1.0, 7.0], [5, 9, 2, 1])
    palette, codes = cluster(values, 4)
    assert np.array_equal(palette[codes], values)
    few, many = (
        ((cluster(v, n)[0][cluster(v, n)[1]] - v) ** 2).mean()
        for v in [np.random.default_rng(0).standard_normal(4000)]
        for n in (4, 16)
    )
    assert many < few / 5
    assert many < 0.011, "Lloyd and Max: 16 levels of a normal leave 0.0095"


@pytest.fixture
def drafted(tmp_path: Path) -> tuple[Path, Path]:
    """A run with an adapter, and a draft of Apple's kind with a template of its names beside it."""
    pytest.importorskip("tamm")
    made = afm_run(tmp_path / "made")
    draft = make_assets(tmp_path / "draft", seed=3, hidden_dim=32, num_layers=2,
                        num_kv_reuse_layers=1, adapters=None)  # fmt: skip
    names = Template()
    for name, tensor in draft_state(draft).items():
        if name.endswith("weight") and name != "output_transform.weight":
            plain = name.replace(".", "_")
            kind = names.palette if tensor.ndim == 2 and tensor.numel() > 999 else names.half
            kind(f"{plain}_to_fp16", list(tensor.shape))
    names.write(tmp_path / "toolkit")
    return made, draft


def test_a_package_with_a_draft_is_whole(drafted, tmp_path):
    made, draft = drafted
    spec = ExportSpec(
        adapter=str(made), name="fast", out=str(tmp_path / "out"),
        target=FMAdapter(draft=str(draft), draft_template=str(tmp_path / "toolkit")),
    )  # fmt: skip
    done = run(spec)
    assert isinstance(done, Exported)
    assert any(fact.startswith("draft: ") for fact in done.facts)
    assert any("costs speed, never words" in note for note in done.notes)
    verdict = verify(done.path)
    assert verdict.has_draft
    assert verdict.broken == []


def test_without_its_template_nothing_is_written(drafted, tmp_path):
    made, draft = drafted
    spec = ExportSpec(
        adapter=str(made), name="fast", out=str(tmp_path / "out"),
        target=FMAdapter(draft=str(draft)),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"holds neither of draft\.mil and weights_template\.bin"):
        run(spec)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="add target.draft=RUN"):
        FMAdapter(draft_template="t")
