"""The vectors of a bank in FAISS: what is found, what is removed, and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from llamastack_provider_meta_reference.memory.vector_index import DamagedSnapshotError, VectorIndex, of_length_1

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UID = "0" * 32
_DIMENSION = 32


def _vectors(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Vectors in groups, as those of texts are."""
    random = np.random.default_rng(seed)
    groups = random.standard_normal((50, _DIMENSION))
    near = groups[random.integers(0, 50, count)] + 0.6 * random.standard_normal((count, _DIMENSION))
    return of_length_1(near.astype("f4"))


def _filled(count: int, exact_up_to: int, *, grown: bool) -> tuple[VectorIndex, NDArray[np.float32]]:
    index, vectors = VectorIndex(_DIMENSION, exact_up_to), _vectors(count)
    index.add(np.arange(1, count + 1), vectors)
    while grown and index.grow():
        pass
    return index, vectors


def _best(vectors: NDArray[np.float32], asked: NDArray[np.float32], only: NDArray[np.int64]) -> list[int]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit[only - 1] @ asked
    return [int(id_) for id_ in only[np.argsort(-scores)][:10]]


def _recall(index: VectorIndex, vectors: NDArray[np.float32], there: NDArray[np.int64], *, filtered: bool) -> float:
    hits = 0
    queries = _vectors(50, 2)
    for asked in queries:
        found = index.search(asked, 10, there if filtered else None)
        hits += len({id_ for id_, _ in found} & {*_best(vectors, asked, there)})
    return hits / (10 * len(queries))


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("part", [1.0, 0.5, 0.01])
def test_the_nearest_of_those_that_may_be_found(grown: bool, part: float) -> None:
    index, vectors = _filled(6000, 1000, grown=grown)
    there = np.arange(1, 6001)[np.random.default_rng(3).random(6000) < part]
    assert _recall(index, vectors, there, filtered=True) >= (0.98 if grown else 1.0)
    assert index.in_graph == (6000 if grown else 0)


def test_removed_vectors_are_not_found_and_make_a_new_graph_when_they_are_many() -> None:
    index, vectors = _filled(6000, 1000, grown=True)
    few = np.arange(500, 6001)
    index.keep_only(few)
    assert index.in_graph == 6000
    assert _recall(index, vectors, few, filtered=False) >= 0.98
    many = np.arange(3000, 6001)
    index.keep_only(many)
    assert index.in_graph == 0
    assert index.must_grow
    assert _recall(index, vectors, many, filtered=False) == 1.0
    while index.grow():
        pass
    assert _recall(index, vectors, many, filtered=False) >= 0.98


def test_vectors_outside_the_graph_are_found_while_it_grows() -> None:
    index, vectors = _filled(3000, 1000, grown=False)
    for _ in range(40):
        assert index.grow()
    assert 0 < index.in_graph < 3000
    assert _recall(index, vectors, np.arange(1, 3001), filtered=False) >= 0.98
    index.keep_only(np.arange(1500, 3001))
    assert _recall(index, vectors, np.arange(1500, 3001), filtered=False) == 1.0


def test_scores_are_cosines_and_a_vector_of_zeros_is_like_nothing() -> None:
    index = VectorIndex(2, 10)
    index.add(np.array([3, 5, 9]), of_length_1(np.array([[2, 0], [0, 0], [-3, 0]], "f4")))
    assert index.search(np.array([7, 0], "f4"), 5, None) == [(3, 1.0), (5, 0.0), (9, -1.0)]
    assert index.search(np.array([7, 0], "f4"), 5, np.array([], np.int64)) == []


def test_a_snapshot_gives_the_same_graph() -> None:
    index, _ = _filled(2000, 100, grown=True)
    loaded = VectorIndex(_DIMENSION, 100)
    loaded.load(index.snapshot(_UID), _UID)
    assert loaded.last_id == 2000
    for asked in _vectors(5, 2):
        assert loaded.search(asked, 10, None) == index.search(asked, 10, None)
    loaded.add(np.array([2001]), asked.reshape(1, -1))
    assert loaded.search(asked, 1, None)[0][0] == 2001


@pytest.mark.parametrize("place", [0, 9, 20, 60, 5000, -1])
def test_a_damaged_snapshot_is_refused(place: int) -> None:
    index, _ = _filled(1000, 100, grown=True)
    content = bytearray(index.snapshot(_UID))
    content[place] ^= 1
    loaded = VectorIndex(_DIMENSION, 100)
    with pytest.raises(DamagedSnapshotError):
        loaded.load(bytes(content), _UID)
    assert loaded.last_id == 0


@pytest.mark.parametrize("length", [0, 5, 30, 1000])
def test_a_cut_snapshot_is_refused(length: int) -> None:
    index, _ = _filled(1000, 100, grown=True)
    with pytest.raises(DamagedSnapshotError):
        VectorIndex(_DIMENSION, 100).load(index.snapshot(_UID)[:length], _UID)


def test_a_snapshot_of_another_bank_is_refused() -> None:
    index, _ = _filled(1000, 100, grown=True)
    with pytest.raises(DamagedSnapshotError, match="another bank"):
        VectorIndex(_DIMENSION, 100).load(index.snapshot(_UID), "1" * 32)
    with pytest.raises(DamagedSnapshotError, match="other vectors"):
        VectorIndex(_DIMENSION + 1, 100).load(index.snapshot(_UID), _UID)
