"""Decodes the bytes of documents, with text encodings only.

Python also has codecs for other purposes, such as punycode, which takes quadratic time. Clients and the servers that
they choose send the names of encodings, so a name is looked up in a list and never passed to Python directly.
"""

from __future__ import annotations

import codecs
import re
from encodings import normalize_encoding
from encodings.aliases import aliases

import anyio.lowlevel
import anyio.to_thread

from llamastack.provider.errors import InvalidRequestError

_ISO_8859 = (*range(2, 12), *range(13, 17))
_CODE_PAGES = (
    *("037", "437", "737", "775", "850", "852", "855", "857", "858", "860", "861", "862", "863", "864", "865", "866"),
    *("869", "874", "932", "949", "950", *(str(number) for number in range(1250, 1259))),
)
ENCODINGS = frozenset(
    (
        *(
            "ascii",
            "latin_1",
            "utf_8",
            "utf_8_sig",
            "utf_16",
            "utf_16_le",
            "utf_16_be",
            "utf_32",
            "utf_32_le",
            "utf_32_be",
        ),
        *(f"iso8859_{number}" for number in _ISO_8859),
        *(f"cp{number}" for number in _CODE_PAGES),
        *("koi8_r", "koi8_t", "koi8_u", "kz1048", "ptcp154", "tis_620"),
        *("mac_roman", "mac_cyrillic", "mac_greek", "mac_iceland", "mac_latin2", "mac_turkish"),
        *("shift_jis", "shift_jis_2004", "shift_jisx0213", "euc_jp", "euc_jis_2004", "euc_jisx0213"),
        *("iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004", "iso2022_jp_ext"),
        *("iso2022_kr", "euc_kr", "johab", "gb2312", "gbk", "gb18030", "hz", "big5", "big5hkscs"),
    )
)
"""The names of Python's codec modules."""
_ALSO = {
    "utf8mb4": "utf_8",
    "unicode_1_1_utf_8": "utf_8",
    "ucs_2": "utf_16",
    "iso_8859_8_i": "iso8859_8",
    "x_sjis": "shift_jis",
    "x_gbk": "gbk",
    "x_mac_cyrillic": "mac_cyrillic",
    "x_mac_roman": "mac_roman",
    "windows_949": "cp949",
    "windows_31j": "cp932",
    "windows_874": "cp874",
    "ks_c_5601_1987": "euc_kr",
}
_BOMS = (
    (codecs.BOM_UTF8, "utf_8_sig"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
_CONTROL = bytes(sorted({*range(32), 127} - set(b"\t\n\r\f")))
_NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,40}")
_STEP = 256 * 1024
_AT_ONCE = 64 * 1024


def encoding_named(charset: str) -> str | None:
    """Python's name of a text encoding; None if it is unknown or no text encoding."""
    if _NAME.fullmatch(charset) is None:
        return None
    name = normalize_encoding(charset.lower())
    name = _ALSO.get(name) or aliases.get(name) or aliases.get(name.replace("_", "")) or name
    return name if name in ENCODINGS else None


async def decoded(raw: bytes, charset: str | None, param: str, *, plain: bool = False) -> str:
    """`raw` as text: by its byte order mark, else by `charset`, else as UTF-8. Large documents are decoded in a thread.

    plain: also refuse NUL and control characters, which plain text does not contain.

    Raises InvalidRequestError, naming `param`, if the bytes cannot be decoded or the charset is no text encoding.
    """
    encoding = "utf_8" if charset is None else encoding_named(charset)
    if encoding is None:
        raise InvalidRequestError(
            f"the document is not text in {charset:.60}: it is no known text encoding", param=param
        )
    if charset is None or encoding.startswith("utf"):
        encoding = next((name for mark, name in _BOMS if raw.startswith(mark)), encoding)
    try:
        if len(raw) <= _AT_ONCE:
            return _decode(raw, encoding, plain)
        return await anyio.to_thread.run_sync(_decode, raw, encoding, plain)
    except ValueError:
        shown = "utf-8" if charset is None else charset
        raise InvalidRequestError(f"the document is not text in {shown}", param=param) from None


def _decode(raw: bytes, encoding: str, plain: bool) -> str:
    """Decode in steps: a decoder holds the interpreter's lock while it runs."""
    decoder = codecs.getincrementaldecoder(encoding)()
    parts: list[str] = []
    for at in range(0, len(raw), _STEP):
        step = raw[at : at + _STEP]
        if plain and len(step.translate(None, _CONTROL)) != len(step):
            raise ValueError("control characters")
        parts.append(decoder.decode(step))
    parts.append(decoder.decode(b"", final=True))
    return "".join(parts)
