"""Cutting: what holds for every text, chunk size and tokenizer."""

from __future__ import annotations

import re
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llamastack_provider_qdrant.chunking import Chunker

pytestmark = pytest.mark.anyio

WORDS = st.lists(
    st.sampled_from(
        ["the", "cat's", "Donaudampfschifffahrt", "3.14", "日本語", "\u200b", "e\u0301", "👩‍👧", "\n\n", "x" * 40]
    )
    | st.text(st.characters(codec="utf-8"), max_size=8),
    max_size=60,
).map(" ".join)
SIZES = st.integers(1, 20).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Chunker:
    """A byte-level BPE tokenizer, whose tokens may be parts of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["the cat and the dog"], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return Chunker(path)


def check(chunker: Chunker, text: str, size: int, overlap: int) -> None:
    chunks = chunker.split(text, size, overlap)
    # In steps of one token the chunks are the tokens.
    tokens = chunker.split(text, 1, 0)
    assert sum(chunk.token_count for chunk in chunks) - overlap * max(len(chunks) - 1, 0) == len(tokens)
    assert [chunk.start for chunk in chunks] == [token.start for token in tokens[:: size - overlap]][: len(chunks)]
    assert all(1 <= chunk.token_count <= size for chunk in chunks)
    assert all(chunk.token_count == size for chunk in chunks[:-1])
    covered = 0
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.start + len(chunk.text)] == chunk.text.strip()
        assert not text[covered : chunk.start].strip()
        covered = max(covered, chunk.start + len(chunk.text))
    assert not text[covered:].strip()
    assert bool(chunks) == bool(text.strip())


@settings(deadline=None)
@given(text=WORDS, sizes=SIZES)
def test_words(text: str, sizes: tuple[int, int]) -> None:
    check(Chunker(), text, *sizes)


@settings(deadline=None)
@given(text=WORDS, sizes=SIZES)
def test_parts_of_characters(byte_level: Chunker, text: str, sizes: tuple[int, int]) -> None:
    check(byte_level, text, *sizes)


def test_neighbours_share_exactly_the_overlap() -> None:
    words = [f"w{i}" for i in range(23)]
    chunks = [chunk.text.split() for chunk in Chunker().split(" ".join(words), 8, 3)]
    assert chunks == [words[0:8], words[5:13], words[10:18], words[15:23]]


def test_what_a_token_is() -> None:
    def tokens(text: str) -> list[str]:
        return [chunk.text for chunk in Chunker().split(text, 1, 0)]

    assert tokens("Don't panic (yet).") == ["Don", "'", "t", "panic", "(", "yet", ")", "."]
    assert tokens("internationalization") == ["internationa", "lization"]
    assert tokens("日本 ok") == ["日", "本", "ok"]


def test_text_longer_than_a_window_is_cut_as_one() -> None:
    words = [f"w{i}" for i in range(20_000)]
    chunks = Chunker().split(" ".join(words), 100, 0)
    assert [chunk.text for chunk in chunks] == [" ".join(words[i : i + 100]) for i in range(0, 20_000, 100)]
    (one,) = Chunker().split("x" * 50_000, 10_000, 0)
    assert one.text == "x" * 50_000


def test_a_tokenizer_file_counts(byte_level: Chunker) -> None:
    (chunk,) = byte_level.split("日本", 100, 0)
    assert chunk.token_count == 6
    assert [c.text for c in byte_level.split("日本", 2, 0)] == ["日", "日本", "本"]


@pytest.mark.parametrize("content", [None, "not json", "{}"])
def test_a_bad_tokenizer_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"tokenizer: {path} cannot be read")):
        Chunker(path)


async def test_cutting_lets_the_event_loop_go_on() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20_000
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        before = time.perf_counter()
        await anyio.to_thread.run_sync(Chunker().split, text, 200, 50)
        took = time.perf_counter() - before
        tasks.cancel_scope.cancel()
    assert longest < took / 2
