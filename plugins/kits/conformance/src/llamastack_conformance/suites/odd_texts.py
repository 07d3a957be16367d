"""Texts that programs change without being asked, or stumble over."""

from __future__ import annotations

from typing import NamedTuple


class OddText(NamedTuple):
    """text: holds `word`, by which a request is found. may_be_refused: a provider may refuse it as invalid."""

    name: str
    word: str
    text: str
    may_be_refused: bool = False


def _odd(name: str, text: str, *, may_be_refused: bool = False) -> OddText:
    word = f"qzodd{name.replace(' ', '')}"
    return OddText(name, word, text.replace("WORD", word), may_be_refused)


ODD_TEXTS = (
    _odd("umlauts", "grüße WORD naïve Ærøskøbing"),
    _odd("decomposed letters", "cafe\u0301 WORD \u1112\u1161\u11ab"),
    _odd("compatibility forms", "\ufb01ne WORD \u2460 x\u00b2 \uff21"),
    _odd("emoji", "🦙 WORD 👩‍👩‍👧‍👦 🏳️‍🌈"),
    _odd("right to left", "שלום WORD مرحبا \u200fabc\u200e"),
    _odd("chinese", "你好 WORD 世界𠜎"),
    _odd("spaces", "a  b\tc WORD\r\n\r\n d\u00a0e\u3000f\u200bg"),
    _odd("quotes", '"a" \'b\' \\n WORD {"c": 1} <d>&amp;</d> %41 ${HOME} {{x}}'),
    _odd("ends", "\n  WORD at both ends \t\n"),
    _odd("nul", "a\0b WORD", may_be_refused=True),
    _odd("control characters", "a\x07b WORD \x1b[31m \x7f", may_be_refused=True),
    _odd("very long", "WORD " + " ".join(f"word{number}" for number in range(2500)) + " the-end"),
)
"""Their characters: Unicode 15; the decomposed ones are not in the normal form C (UAX 15)."""
ENDS = "ends"
