"""Escapes text from outside, so that it cannot control the terminal."""

from __future__ import annotations

import re

from llamastack.provider.control_characters import CONTROL, escaped

_OF_TERMINALS = re.compile(f"[{CONTROL}]")
_ODD_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")


def for_terminal(text: str) -> str:
    r"""The text with its lines and tabs; other control characters become `\x1b`."""
    return text if text.isprintable() else _OF_TERMINALS.sub(escaped, text.replace("\r\n", "\n"))


def json_for_terminal(text: str) -> str:
    r"""The same JSON, with control characters that JSON allows unescaped written as `\u009b`."""
    return text if text.isascii() and "\x7f" not in text else _ODD_IN_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)
