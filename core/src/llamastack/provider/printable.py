"""Text from outside made fit for a line of a log or for a terminal: it can forge no line and steer no terminal."""

from __future__ import annotations

import re

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Control characters, what ends a line for some readers, what turns the direction of writing, what cannot be seen or
# encoded. Joiners of emoji and of scripts stay.
_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
_ODD = re.compile(
    f"[{_CONTROL}\t\n\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
_OF_TERMINALS = re.compile(f"[{_CONTROL}]")
_ODD_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")


def one_line(text: str) -> str:
    r"""`text` in one line that shows as it is: `\n`, `\x1b`, `\u202e` instead of the characters."""
    return text if text.isprintable() else _ODD.sub(_escaped, text)


def indented(text: str, indent: str = "    ") -> str:
    """The lines of `text`, such as a traceback, each indented, so that none can be taken for one of a log."""
    return "\n".join(indent + one_line(line.expandtabs(4)) for line in text.rstrip().replace("\r\n", "\n").split("\n"))


def for_terminal(text: str) -> str:
    r"""A longer text with its lines and tabs; control characters, which could steer the terminal, as `\x1b`."""
    return text if text.isprintable() else _OF_TERMINALS.sub(_escaped, text.replace("\r\n", "\n"))


def json_for_terminal(text: str) -> str:
    r"""The same JSON, with what its own rules leave raw escaped by them: `\u009b`."""
    return text if text.isascii() and "\x7f" not in text else _ODD_IN_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
