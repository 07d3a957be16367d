"""Text of an argument or of stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llamastack.provider.commands import WrongInputError


def text_given(words: Sequence[str], what: str) -> str:
    """The words, or the text on stdin if there are none or only `-`.

    Raises WrongInputError if the text is empty or no UTF-8. what: its name in errors.
    """
    if words and tuple(words) != ("-",):
        text = " ".join(words)
    else:
        try:
            text = sys.stdin.buffer.read().decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise WrongInputError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise WrongInputError(f"the {what} is empty")
    return text
