"""Words as sparse vectors: with Qdrant's `idf` modifier, the dot product of a query and a chunk is BM25.

A word is a run of letters and digits, folded to lower case without accents. A character of a script without spaces,
such as Chinese or Japanese, is a word of its own. There is no list of stop words and no stemming, so that all languages
are treated alike. A word's place in the vector is a hash of 32 bits. The weights are those of
https://en.wikipedia.org/wiki/Okapi_BM25, with the chunk size of the bank in place of the average length.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from functools import lru_cache

from qdrant_client import models

WORDS = "words"
"""The name of the sparse vectors."""
_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_MARKS = re.compile("[\u0300-\u036f]+")


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    folded = text.casefold() if text.isascii() else _MARKS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return _WORD.findall(folded)


def chunk_words(text: str, usual_length: int) -> models.SparseVector:
    """The weights of the words of a chunk. usual_length: the words of a usual chunk, at least 1."""
    found = words_of(text)
    base = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * len(found) / usual_length)
    counted = Counter(map(_place, found))
    return models.SparseVector.model_construct(  # not validated: an insert has many numbers
        indices=list(counted), values=[times * (_SATURATION + 1) / (times + base) for times in counted.values()]
    )


def query_words(text: str) -> models.SparseVector:
    """The words of a query, each with the weight 1; empty if there are none."""
    places = list(dict.fromkeys(map(_place, words_of(text))))
    return models.SparseVector(indices=places, values=[1.0] * len(places))


@lru_cache(maxsize=65536)
def _place(word: str) -> int:
    return int.from_bytes(hashlib.blake2s(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
