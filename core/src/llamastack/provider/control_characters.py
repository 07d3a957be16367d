"""Text from outside made fit for a line of a log or of a terminal: it can forge no line and steer no terminal."""

from __future__ import annotations

import re

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Control characters, what ends a line for some readers, what turns the direction of writing, what cannot be seen or
# encoded. Joiners of emoji and of scripts stay.
CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
_ODD = re.compile(f"[{CONTROL}\t\n\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]")


def one_line(text: str) -> str:
    r"""`text` in one line that shows as it is: `\n`, `\x1b`, `\u202e` instead of the characters."""
    return text if text.isprintable() else _ODD.sub(escaped, text)


def indented(text: str, indent: str = "    ") -> str:
    """The lines of `text`, such as a traceback, each indented, so that none can be taken for one of a log."""
    return "\n".join(indent + one_line(line.expandtabs(4)) for line in text.rstrip().replace("\r\n", "\n").split("\n"))


def escaped(found: re.Match[str]) -> str:
    r"""How a character is shown that cannot be shown as it is: `\n`, `\x1b`, `\u202e`."""
    character = found[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
