"""Checks of embeddings: the order of few and of many texts, and texts that programs stumble over."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import Any
from weakref import WeakKeyDictionary

from llamastack.api.inference import EmbeddingsResponse
from llamastack.provider.errors import InternalError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import SUBJECTS, InferenceCalls, different_texts
from llamastack_conformance.suites.inference_ways import ANSWERS
from llamastack_conformance.suites.odd_texts import ODD_TEXTS
from llamastack_conformance.trials import KEPT

_PLACES = (0, 9, 11, 19)
_SINGLES_OF_MANY = 4
_TURNED = 3
_SAMPLE = 64
_CROSSING = 130
_FOR_MANY_S = 10.0
# On both sides of the sizes of batches that backends have: 64, 96, 100, 128.
_PLACES_OF_BATCHES = (0, 63, 64, 95, 96, 100, 127, 128, 129)
_NOUNS = (
    "boat",
    "lamp",
    "horse",
    "rain",
    "glass",
    "stone",
    "music",
    "bread",
    "snow",
    "wheel",
    "paper",
    "garden",
    "clock",
)
_MAY_FAIL = ("nul", "control characters", "very long")
Vector = list[float]
_ALONE: WeakKeyDictionary[object, dict[str, Vector]] = WeakKeyDictionary()


def _few_texts() -> list[str]:
    texts = different_texts(18)
    return [*texts[:9], texts[0], *texts[9:], texts[5]]


FEW_TEXTS = _few_texts()
"""Twenty texts, of which two are there twice."""
BATCHED_TEXTS = [f"{noun} {subject}" for noun in _NOUNS for subject in SUBJECTS]
"""Short texts, so that a small machine computes them soon too: more than fill a batch of 64, of 100 and of 128."""
FEW_KNOWN_AS = "embeddings of twenty texts"
"""The name by which `ANSWERS` knows the backend's answer to them."""


class VectorChecks(InferenceCalls):
    """The checks of embeddings of many and of odd texts."""

    @check(
        "vectors.order",
        tier=Tier.live,
        capability="embeddings",
        mend="return the vectors in the order of the contents, equal texts too; sort them by the backend's index",
    )
    async def test_vectors_order(self, subject: Subject) -> None:
        """of twenty texts each has the vector that it has alone, in any order of the texts, equal ones too"""
        texts, tapped = FEW_TEXTS, subject.backend_url is not None
        async with subject.shared(tapped=tapped) as running:
            embed = partial(self._vectors, running, texts)
            vectors = await (ANSWERS.prime(subject, running.tap, FEW_KNOWN_AS, embed) if tapped else embed())
            if tapped:
                running.tap.clear()
            turned = (await self._vectors(running, texts[:_TURNED][::-1]))[::-1]
            alone = {place: await self._alone(running, texts[place]) for place in _PLACES}
        for place, vector in alone.items():
            _is_its_own(f"{texts[place]!r} at {place} of {len(texts)}", vector, vectors, place, texts)
        for place in range(_TURNED):
            _is_its_own(f"{texts[place]!r} in another order", vectors[place], turned, place, texts[:_TURNED])

    @check(
        "vectors.batches",
        tier=Tier.live,
        capability="embeddings",
        mend="put the vectors of several batches together in the order of the contents",
    )
    async def test_vectors_batches(self, subject: Subject) -> None:
        """of 130 short texts those around the 64th, the 100th and the 128th have the vectors that they have alone"""
        texts = BATCHED_TEXTS[: subject.settings.many_texts]
        places = [place for place in _PLACES_OF_BATCHES if place < len(texts)]
        async with subject.shared() as running:
            vectors = await self._vectors(running, texts)
            alone = {place: await self._alone(running, texts[place]) for place in places}
        for place, vector in alone.items():
            _is_its_own(f"{texts[place]!r} at {place} of {len(texts)}", vector, vectors, place, texts)

    @check(
        "vectors.many",
        tier=Tier.stress,
        capability="embeddings",
        mend="send as many contents in one request as the backend takes, and put the vectors together in order",
    )
    async def test_vectors_many(self, subject: Subject) -> None:
        """a call with as many texts as are embedded in ten seconds, at most 2,000, gets one vector for each,
        in order (x-conformance.many_texts)
        """
        tapped = subject.backend_url is not None
        async with subject.shared(tapped=tapped) as running:
            texts = different_texts(await self._count_in_time(running))
            last = len(texts) - 1
            places = [place * last // _SINGLES_OF_MANY for place in range(_SINGLES_OF_MANY + 1)]
            before = len(running.tap.exchanges) if tapped else 0
            vectors = await self._vectors(running, texts)
            if tapped:
                KEPT.keep(subject, running.tap.exchanges[before:])
            alone = {place: await self._alone(running, texts[place]) for place in places}
        for place, vector in alone.items():
            _is_its_own(f"text {place} of {len(texts)}", vector, vectors, place, texts)
        if len({tuple(vector) for vector in vectors}) < len(texts) * 0.99:
            raise CheckFailure("different texts have the same vector")

    @check(
        "vectors.odd-texts",
        tier=Tier.live,
        capability="embeddings",
        mend="pass texts on as they are, and raise an error for what the backend cannot embed",
    )
    async def test_vectors_odd_texts(self, subject: Subject) -> None:
        """accents, emoji, right-to-left text and quotes get a vector; an empty text, NUL and a very long text get one
        or an error other than InternalError; the texts beside them get their own vectors
        """
        before, after = different_texts(2)
        sound = [odd.text for odd in ODD_TEXTS if odd.name not in _MAY_FAIL]
        odd_ones = [("empty", ""), *((odd.name, odd.text) for odd in ODD_TEXTS if odd.name in _MAY_FAIL)]
        async with subject.shared() as running:
            first, last = [await self._alone(running, text) for text in (before, after)]
            for name, texts in (("of any script", sound), *((name, [text]) for name, text in odd_ones)):
                given = [before, *texts, after] if texts == sound else [*texts, after]
                try:
                    vectors = await self._vectors(running, given)
                except LlamaStackError as error:
                    if texts == sound or isinstance(error, InternalError):
                        raise
                    continue
                _is_its_own(f"a text after one that is {name}", last, vectors, len(given) - 1, given)
                if texts == sound:
                    _is_its_own(f"a text before those {name}", first, vectors, 0, given)

    async def _count_in_time(self, running: Running) -> int:
        """How many texts a call can have without a failure that shows a slow machine alone.

        As many as take ten seconds, at least as many as fill a batch of 128, if half of the time limit is enough.
        """
        settings = running.subject.settings
        sample = different_texts(min(_SAMPLE, settings.many_texts))
        await self._alone(running, sample[0])  # a first call may load the model
        began = time.monotonic()
        await self._vectors(running, sample)
        a_second = len(sample) / max(time.monotonic() - began, 1e-6)
        least = min(_CROSSING, int(a_second * settings.time_limit_s / 2))
        return max(1, min(settings.many_texts, max(least, int(a_second * _FOR_MANY_S))))

    async def _alone(self, running: Running, text: str) -> Vector:
        """The vector of a text that is embedded by itself; the model computes it once for all checks of a provider."""
        known = _ALONE.setdefault(running.subject, {})
        if text not in known:
            known[text] = (await self._vectors(running, [text]))[0]
        return known[text]

    async def _vectors(self, running: Running, texts: list[str]) -> list[Vector]:
        reply: Any = await self._embed(running, texts)
        if not isinstance(reply, EmbeddingsResponse):
            raise CheckFailure(f"{type(reply).__name__}", wanted="an EmbeddingsResponse")
        vectors = reply.embeddings
        if len(vectors) != len(texts):
            raise CheckFailure(f"{len(vectors)} vectors for {len(texts)} contents")
        sizes = {len(vector) for vector in vectors}
        if len(sizes) != 1 or sizes == {0}:
            raise CheckFailure(f"vectors of {sorted(sizes)} numbers", wanted="one dimension")
        if not all(math.isfinite(number) for vector in vectors for number in vector):
            raise CheckFailure("numbers that are not finite")
        if not all(any(vector) for vector in vectors):
            raise CheckFailure("a vector of zeros")
        return vectors


def _is_its_own(what: str, alone: Vector, found: Sequence[Vector], place: int, texts: Sequence[str]) -> None:
    """Raise CheckFailure unless, of all vectors found, the one at `place` is the nearest to that of its text alone.

    How near it is does not count: engines compute a batch a little differently from a single text.
    """
    if len(alone) != len(found[place]):
        raise CheckFailure(f"{what} has {len(found[place])} numbers, alone {len(alone)}")
    likeness = [_cosine(alone, vector) for vector in found]
    best = max(likeness)
    nearest = {texts[other] for other, value in enumerate(likeness) if value >= best - 1e-6}
    if texts[place] not in nearest:
        raise CheckFailure(
            f"{what} has a vector with the likeness {likeness[place]:.4f} to that of the text alone; that of "
            f"{next(iter(nearest))!r} is nearer ({best:.4f})",
            wanted="the nearest vector is its own",
        )


def _cosine(left: Vector, right: Vector) -> float:
    """Cosine of the angle between two vectors."""
    return float(sum(map(mul, left, right))) / ((math.hypot(*left) * math.hypot(*right)) or 1.0)
