"""The model that tests compute with is the packaged one in another form."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from workspace_tools import tool

model_for_tests = tool("model_for_tests")
F32, Q4_1, Q8_0 = 0, 3, 8


def q4_1(factor: float, minimum: float, numbers: list[int]) -> bytes:
    """A block as `dequantize_row_q4_1` of ggml reads it: byte n holds number n below and number n + 16 above."""
    return struct.pack(
        "<ee16B", factor, minimum, *(low | high << 4 for low, high in zip(numbers[:16], numbers[16:], strict=True))
    )


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def gguf(*tensors: tuple[bytes, tuple[int, ...], int, bytes]) -> bytes:
    """A file with metadata of several types."""
    pairs = [
        string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama"),
        string(b"llama.block_count") + struct.pack("<II", 4, 30),
        string(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string(b"a") + string(b"bc"),
        string(b"llama.some_flag") + struct.pack("<IB", 7, 1),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, shape, kind, values in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += values + bytes(-len(values) % 32)
    return head + bytes(-len(head) % 32) + data


def test_a_value_keeps_its_place_and_nearly_its_size() -> None:
    numbers = [*range(16), *reversed(range(16))]
    blocks = q4_1(0.5, -3.0, numbers) + q4_1(0.0, 0.0, numbers)
    weights = model_for_tests.from_q4_1(blocks)
    assert weights.tolist() == [[number * 0.5 - 3.0 for number in numbers], [0.0] * 32]
    written = model_for_tests.to_q8_0(weights)
    assert len(written) == 2 * 34
    for row, block in zip(weights, (written[:34], written[34:]), strict=True):
        factor, *stored = struct.unpack("<e32b", block)
        assert np.abs(row - factor * np.array(stored)).max() <= np.abs(row).max() / 127


def test_only_q4_1_changes() -> None:
    block, plain = q4_1(1.0, 0.0, [3] * 32), struct.pack("<4f", 1, 2, 3, 4) * 8
    first, last = (b"norm.weight", (32,), F32, plain), (b"output_norm.weight", (16, 2), F32, plain)
    between = model_for_tests.to_q8_0(model_for_tests.from_q4_1(block * 3))
    given = gguf(first, (b"blk.0.weight", (32, 3), Q4_1, block * 3), last)
    assert model_for_tests.in_q8_0(given) == gguf(first, (b"blk.0.weight", (32, 3), Q8_0, between), last)


def test_no_other_file_is_read() -> None:
    with pytest.raises(ValueError, match="not a GGUF file"):
        model_for_tests.in_q8_0(b"GGML" + bytes(64))


def test_the_written_file_is_that_of_the_installed_package() -> None:
    path = model_for_tests.written()
    assert path.name == "SmolLM2-135M-Instruct.Q8_0-from-b179c9523d0e6a0f.gguf"
    assert path.stat().st_size > model_for_tests.packaged().stat().st_size


def test_a_missing_file_says_what_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_for_tests, "FOLDER", tmp_path)
    with pytest.raises(model_for_tests.NotWrittenError, match=r"there is no .*Q8_0.*; `make setup` writes it"):
        model_for_tests.written()
