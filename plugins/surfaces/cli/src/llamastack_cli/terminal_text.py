"""Longer text from outside made fit for a terminal, which it cannot steer then."""

from __future__ import annotations

import re

from llamastack.provider.control_characters import CONTROL, escaped

_OF_TERMINALS = re.compile(f"[{CONTROL}]")
_ODD_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")


def for_terminal(text: str) -> str:
    r"""A longer text with its lines and tabs; control characters, which could steer the terminal, as `\x1b`."""
    return text if text.isprintable() else _OF_TERMINALS.sub(escaped, text.replace("\r\n", "\n"))


def json_for_terminal(text: str) -> str:
    r"""The same JSON, with what its own rules leave raw escaped by them: `\u009b`."""
    return text if text.isascii() and "\x7f" not in text else _ODD_IN_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)
