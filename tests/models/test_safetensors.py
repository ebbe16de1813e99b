from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from soong.errors import ConfigError
from soong.models.config_json import Config
from soong.models.quantization import read_quantization
from soong.models.safetensors import header_length, parameter_count, parse_header, read_header, totals
from tests.support.safetensors_writer import header_bytes, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.safetensors_writer import Tensors

PLAIN: Tensors = {"a.weight": ("BF16", (4, 8)), "b.weight": ("F32", (3,)), "empty": ("F16", (0, 5))}


def test_tensors_have_names_types_shapes_and_places() -> None:
    start, data_bytes = header_bytes(PLAIN)
    tensors = parse_header(start, "x.safetensors", file_bytes=len(start) + data_bytes)
    by_name = {tensor.name: tensor for tensor in tensors}
    assert by_name["a.weight"].shape == (4, 8)
    assert (by_name["a.weight"].start_byte, by_name["a.weight"].end_byte) == (0, 64)
    found = totals(tensors)
    assert (found.tensors, found.elements, found.size_bytes) == (3, 35, 76)
    assert found.bytes_by_dtype == {"BF16": 64, "F32": 12, "F16": 0}


def test_a_file_on_disk_is_read_by_its_header_alone(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("BF16", (100_000, 100_000))})
    assert totals(read_header(path)).size_bytes == 20_000_000_000


def test_a_download_that_was_cut_off_is_found_out(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("BF16", (1000, 1000))})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(ConfigError, match="is cut off"):
        read_header(path)


def _file(rows: object) -> bytes:
    header = json.dumps(rows).encode()
    return len(header).to_bytes(8, "little") + header


def _row(dtype: object = "F16", shape: object = (2,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 8 + b"{}",
        (1 << 40).to_bytes(8, "little"),
        (0).to_bytes(8, "little"),
        (50).to_bytes(8, "little") + b'{"a"',
        _file([]),
        _file({"a": 3}),
        (4).to_bytes(8, "little") + b"\xff\xfe{}",
        (200_000).to_bytes(8, "little") + b'{"a":' + b"[" * 199_995,
        _file({"a": _row(dtype="F1")}),
        _file({"a": _row(dtype=7)}),
        _file({"a": _row(shape=[-2])}),
        _file({"a": _row(shape=[True])}),
        _file({"a": _row(shape=[2.0])}),
        _file({"a": _row(shape=2)}),
        _file({"a": _row(shape=[1] * 40, offsets=[0, 2])}),
        _file({"a": _row(shape=[1 << 62, 1 << 62])}),
        _file({"a": _row(offsets=[4, 0])}),
        _file({"a": _row(offsets=[-4, 0])}),
        _file({"a": _row(offsets=[0])}),
        _file({"a": _row(offsets=[0, 5])}),
        _file({"a": _row(), "b": _row(offsets=[2, 6])}),
        _file({"a": _row(), "b": _row(offsets=[8, 12])}),
        _file({"a": _row(offsets=[1 << 63, (1 << 63) + 4])}),
    ],
)
def test_hostile_headers_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_header(data, "x.safetensors")


def test_the_refusal_names_file_and_tensor() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_header(_file({"model.norm": _row(offsets=[0, 5])}), "x.safetensors")
    assert "x.safetensors" in str(caught.value)
    assert "model.norm" in str(caught.value)


def test_the_length_alone_is_checked_before_anything_is_fetched() -> None:
    with pytest.raises(ConfigError):
        header_length((1 << 62).to_bytes(8, "little"), "x")


# (out, in) = (64, 128) in each way of packing: 8192 numbers.
PACKED: list[tuple[dict[str, object], Tensors]] = [
    (
        {"quant_method": "awq", "bits": 4, "group_size": 32},
        {"m.qweight": ("I32", (128, 8)), "m.qzeros": ("I32", (4, 8)), "m.scales": ("F16", (4, 64))},
    ),
    (
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        {"m.qweight": ("I32", (16, 64)), "m.g_idx": ("I32", (128,)), "m.scales": ("F16", (4, 64))},
    ),
    (
        {"quant_method": "gptq", "bits": 8, "group_size": 32},
        {"m.qweight": ("I32", (32, 64)), "m.scales": ("F16", (4, 64))},
    ),
    (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"},
                }
            },
        },
        {
            "m.weight_packed": ("I32", (64, 16)),
            "m.weight_scale": ("BF16", (64, 4)),
            "m.weight_shape": ("I64", (2,)),
        },
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {
            "m.weight": ("U8", (4096, 1)),
            "m.weight.absmax": ("U8", (128,)),
            "m.weight.quant_map": ("F32", (16,)),
            "m.weight.quant_state.bitsandbytes__nf4": ("U8", (200,)),
        },
    ),
    (
        {"quant_method": "mxfp4"},
        {"m_blocks": ("U8", (64, 4, 16)), "m_scales": ("U8", (64, 4))},
    ),
    (
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"m.weight": ("F8_E4M3", (64, 128)), "m.weight_scale_inv": ("F32", (1, 1))},
    ),
]


@pytest.mark.parametrize(("section", "tensors"), PACKED)
def test_packed_numbers_are_counted_one_by_one(section: dict[str, object], tensors: Tensors) -> None:
    config = Config({"model_type": "llama", "quantization_config": section})
    quantization = read_quantization(config, dtype="bfloat16")
    start, _ = header_bytes({**tensors, "norm.weight": ("BF16", (128,))})
    assert parameter_count(parse_header(start, "x"), quantization) == 64 * 128 + 128
