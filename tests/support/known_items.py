"""Known-item search over Debian's manual pages: a query is the description of a page, its target the rest of the page.

The pages are those of the packages `manpages` and `manpages-dev` (https://www.kernel.org/doc/man-pages/), if they are
installed.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/usr/share/man")
_SECTIONS = ("man2", "man3", "man4", "man5", "man7")
_HEADER = re.compile(rb"^\.TH .*Linux man-pages", re.M)
_NAME = re.compile(r"^\.SH NAME\n(?P<names>.*?) \\- (?P<description>.*?)\n(?=\.SH )", re.M | re.S)
_PARAGRAPHS = ("PP", "P", "LP", "SH", "SS", "TP", "IP")
_WORDS = 400


@dataclass(frozen=True)
class Page:
    """name: of its file. query: its description. text: the first words of the page, without the description."""

    name: str
    query: str
    text: str


def pages(sample: str, most: int) -> list[Page]:
    """Pages of one sample, always the same. Samples of other names share no page. Empty where no pages are installed.

    sample: `tuning` or `report`.
    """
    found = sorted(_files(sample), key=lambda path: _digest(path.name))
    read = filter(None, map(_page, found))
    return [page for page, _ in zip(read, range(most), strict=False)]


def _files(sample: str) -> Iterator[Path]:
    wanted = ("tuning", "report").index(sample)
    for section in _SECTIONS:
        for path in (FOLDER / section).glob("*.gz"):
            if not path.is_symlink() and int(_digest(path.name)[:2], 16) % 2 == wanted:
                yield path


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _page(path: Path) -> Page | None:
    raw = gzip.decompress(path.read_bytes())
    if not _HEADER.search(raw):
        return None
    source = raw.decode("utf-8", errors="replace")
    name = _NAME.search(source)
    if name is None:
        return None
    text = _first_words(_plain(f"{name['names']}\n.PP\n{source[name.end() :]}"))
    return Page(path.name.removesuffix(".gz"), " ".join(_plain(name["description"]).split()), text)


def _plain(source: str) -> str:
    """The words of a page in roff, without its macros and escapes."""
    lines = []
    for line in source.splitlines():
        if line.startswith((".", "'")):
            macro, _, line = line[1:].strip().partition(" ")
            if macro in _PARAGRAPHS:
                lines.append("")
            if macro not in ("B", "I", "BR", "RB", "IR", "RI", "BI", "IB", "SH", "SS", "SB", "SM", "TP", "IP"):
                continue
        line = re.sub(r"\\f(\[[^]]*\]|\(..|.)", "", line)
        line = re.sub(r"\\\((..)", " ", re.sub(r"\\\[[^]]*\]", " ", line)).replace("\\-", "-").replace("\\&", "")
        lines.append(line.replace("\\e", "\\").replace('"', ""))
    return "\n".join(lines)


def _first_words(text: str) -> str:
    words = re.finditer(r"\S+", text)
    places = [word.end() for word, _ in zip(words, range(_WORDS), strict=False)]
    return re.sub(r"\n{3,}", "\n\n", text[: places[-1] if places else 0]).strip()


def ndcg_at_10(rankings: Mapping[str, Sequence[str]]) -> float:
    """Normalized discounted cumulative gain: with one target, 1 / log2(1 + rank) of it within the first ten, else 0.

    rankings: target -> names of the pages found, the best first, each once.
    """
    gains = [
        1 / math.log2(found[:10].index(target) + 2) if target in found[:10] else 0.0
        for target, found in rankings.items()
    ]
    return sum(gains) / len(gains)


def recall_at(most: int, rankings: Mapping[str, Sequence[str]]) -> float:
    """The share of targets within the first `most` pages."""
    return sum(target in found[:most] for target, found in rankings.items()) / len(rankings)
