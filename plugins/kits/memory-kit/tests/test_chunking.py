"""Cutting: what holds for every text, chunk size and tokenizer."""

from __future__ import annotations

import re
import time
import unicodedata
from itertools import pairwise, zip_longest
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llamastack_memory_kit import Chunker
from llamastack_memory_kit.sentences import ends_in

pytestmark = pytest.mark.anyio

WORDS = st.lists(
    st.sampled_from(
        [
            "the",
            "cat's",
            "Donaudampfschifffahrt",
            "3.14",
            "日本語",
            "\u200b",
            "e\u0301",
            "👩‍👧",
            "\n\n",
            "x" * 40,
            "It ends.",
            "Does it?",
            "終わり。",
        ]
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


WORD_TOGETHER = re.compile(r"[A-Za-z0-9]{2}")


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Chunker:
    """A tokenizer that drops every character that is no lower-case letter."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return Chunker(path)


def is_within(text: str, place: int) -> bool:
    """Whether a cut at `place` is within a word of Latin letters and digits, or before a combining mark."""
    if not 0 < place < len(text) or text[place - 1].isspace():
        return False
    together = WORD_TOGETHER.fullmatch(text[place - 1 : place + 1])
    return together is not None or unicodedata.category(text[place]).startswith("M")


def check(chunker: Chunker, text: str, size: int, overlap: int) -> None:
    pieces = chunker.split(text, size, overlap)
    tokens = chunker.split(text, 1, 0)  # in steps of one token the pieces are the tokens
    assert bool(pieces) == bool(text.strip())
    assert all(1 <= piece.token_count <= size for piece in pieces)
    assert sum(piece.token_count for piece in pieces) - len(tokens) <= overlap * max(len(pieces) - 1, 0)
    # All is covered, in order.
    covered = 0
    for piece in pieces:
        assert piece.text == text[piece.start : piece.start + len(piece.text)] == piece.text.strip()
        assert not text[covered : piece.start].strip()
        covered = max(covered, piece.start + len(piece.text))
    assert not text[covered:].strip()
    for before, after in pairwise(pieces):
        assert before.start <= after.start
        assert before.start + len(before.text) <= after.start + len(after.text)
        # Only a word that is longer than a piece is cut itself.
        end = before.start + len(before.text)
        if is_within(text, end) or is_within(text, after.start):
            assert max(before.token_count, after.token_count) == size


def check_is_full(chunker: Chunker, text: str, size: int, overlap: int) -> None:
    """For a text without long words: each piece is as long as can be, and shares as much as can be."""
    words = [chunker.split(word, 10**6, 0)[0].token_count for word in text.split()]
    pieces = chunker.split(text, size, overlap)
    first = 0
    for piece, next_piece in zip_longest(pieces, pieces[1:]):
        count = len(piece.text.split())
        assert sum(words[first : first + count]) == piece.token_count
        behind = first + count
        if next_piece is None:
            assert behind == len(words)
            return
        assert piece.token_count + words[behind] > size
        starts = [
            start
            for start in range(first + 1, behind + 1)
            if sum(words[start:behind]) <= overlap and sum(words[start : behind + 1]) <= size
        ]
        first = starts[0]
        assert next_piece.text.split()[0] == text.split()[first]


@settings(deadline=None)
@given(text=WORDS, sizes=SIZES)
def test_words(text: str, sizes: tuple[int, int]) -> None:
    check(Chunker(), text, *sizes)


@settings(deadline=None)
@given(text=WORDS, sizes=SIZES)
def test_parts_of_characters(byte_level: Chunker, text: str, sizes: tuple[int, int]) -> None:
    check(byte_level, text, *sizes)


@settings(deadline=None)
@given(text=WORDS, sizes=SIZES)
def test_characters_that_the_tokenizer_drops(dropping: Chunker, text: str, sizes: tuple[int, int]) -> None:
    check(dropping, text, *sizes)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 48), min_size=1, max_size=60), sizes=SIZES)
def test_pieces_are_as_long_as_can_be(lengths: list[int], sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    text = " ".join("x" * min(length, size * 12) for length in lengths)
    check_is_full(Chunker(), text, size, overlap)


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
    assert tokens("e\u0301te\u0301") == ["e\u0301te\u0301"]


@pytest.mark.parametrize(
    ("text", "size", "pieces"),
    [
        ("an internationalization effort", 2, ["an", "internationalization", "effort"]),
        ("an internationalization effort", 1, ["an", "internationa", "lization", "effort"]),
        ("\u0e19\u0e49\u0e33\u0e14\u0e37\u0e48\u0e21", 4, ["\u0e19\u0e49\u0e33", "\u0e14\u0e37\u0e48\u0e21"]),
        ("\N{WOMAN}\u200d\N{GIRL} " * 2, 1, ["\N{WOMAN}\u200d\N{GIRL}"] * 2),
        ("\N{WOMAN}\u200d\N{GIRL}" * 8, 1, ["\N{WOMAN}\u200d\N{GIRL}" * 4] * 2),
    ],
)
def test_words_and_characters_stay_whole(text: str, size: int, pieces: list[str]) -> None:
    assert [piece.text for piece in Chunker().split(text, size, 0)] == pieces


def test_a_cancelled_caller_stops_it() -> None:
    class StopError(Exception):
        pass

    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise StopError

    with pytest.raises(StopError):
        Chunker().split("word " * 100_000, 10, 0, check)


def test_text_longer_than_a_window_is_cut_as_one() -> None:
    words = [f"w{i}" for i in range(20_000)]
    chunks = Chunker().split(" ".join(words), 100, 0)
    assert [chunk.text for chunk in chunks] == [" ".join(words[i : i + 100]) for i in range(0, 20_000, 100)]
    (one,) = Chunker().split("x" * 50_000, 10_000, 0)
    assert one.text == "x" * 50_000


def test_a_tokenizer_file_counts(byte_level: Chunker) -> None:
    (chunk,) = byte_level.split("日本", 100, 0)
    assert chunk.token_count == 6
    assert [c.text for c in byte_level.split("日本", 3, 0)] == ["日", "本"]
    assert [c.text for c in byte_level.split("日本", 2, 0)] == ["日", "日", "本", "本"]


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


# ---- sentences and paragraphs ----------------------------------------------------------------------------------------

SENTENCES = st.lists(st.integers(1, 14), min_size=1, max_size=40).map(
    lambda lengths: " ".join("Ww" + " ww" * (length - 1) + "." for length in lengths)
)


@settings(deadline=None)
@given(text=SENTENCES, sizes=SIZES)
def test_pieces_end_with_sentences_in_their_last_third(text: str, sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    check(Chunker(), text, size, overlap)
    pieces = Chunker().split(text, size, overlap)
    earlier = 0
    for piece in pieces[:-1]:
        end = piece.start + len(piece.text)
        if not piece.text.endswith("."):
            # No sentence ends in the last third of a full piece, or only where the piece before ends.
            last_part = [place for place in range(max(piece.start, earlier), end) if text[place] == "."]
            tokens = [Chunker().count(text[piece.start : place + 1]) for place in last_part]
            assert all(count < size - size // 3 for count in tokens)
        earlier = end
    for before, after in pairwise(pieces):
        shared = text[after.start : before.start + len(before.text)]
        if "Ww" in shared:
            assert after.text.startswith("Ww")  # the overlap begins with a sentence, if one begins in it


@pytest.mark.parametrize(("size", "end"), [(12, "seven."), (14, "nine.")])
def test_a_paragraph_is_the_better_end(size: int, end: str) -> None:
    text = "One two three. Four five six seven.\n\nEight nine. Ten eleven twelve thirteen fourteen."
    assert Chunker().split(text, size, 0)[0].text.endswith(end)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One two. Three", ["One two."]),
        ('He said "no!" Then', ['He said "no!"']),
        ("Dr. Smith met J. Doe, e.g. Tuesday at 3.14 p.m. there", []),
        ("and so on... but then", []),
        ("終わり。次", ["終わり。"]),
        ("1. Item\n2. Other", ["1. Item"]),
        ("Wrapped\nline", []),
        ("Text\n# Heading", ["Text"]),
        ("Text\n\n# Heading\n\nmore", ["Text"]),
        ("Text\n \nmore", ["Text"]),
    ],
)
def test_where_sentences_end(text: str, ends: list[str]) -> None:
    assert [text[:place] for place, _ in ends_in(text)] == ends


@pytest.mark.parametrize("text", ["." * 500_000, ". " * 250_000, "\n " * 250_000, ".)" * 250_000, "." + " " * 500_000])
def test_no_text_takes_long(text: str) -> None:
    before = time.process_time()
    sum(1 for _ in ends_in(text))
    assert time.process_time() - before < 3
