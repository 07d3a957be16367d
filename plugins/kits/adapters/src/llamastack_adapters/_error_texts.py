"""The text of an error body that is no JSON: a line, a page of HTML, or XML as AWS has it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator

from llamastack.http.lone_surrogates import whole_text

MOST_MESSAGE = 16 * 1024
"""Characters of a message; the stack redacts secrets, and then shows far less."""
MOST_CODE = 200
"""Characters of a code or of the name of a parameter."""
_MOST_PAGE = 300  # characters of a page of HTML
_TAG = re.compile(r"<([^<>]*)>")  # a tag ends before the next begins, so the time is linear in the length
_PAGE = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SHOWN = {"title", "h1", "h2", "p", "pre"}
_HIDDEN = {"script", "style", "svg", "noscript"}
_XML_ERROR = re.compile(r"\s*<(?:\?xml|Error\b|ErrorResponse\b|Response\b|ServiceException\b)")


def one_line(value: object) -> str:
    """A text, or the JSON of something else, in one line. Of a page of HTML only its headings."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = "an error that cannot be shown"
    page = _PAGE.search(text)
    if page is not None:
        text = f"{text[: page.start()]} {_headings(text[page.start() :])}"
    elif text.lstrip().startswith("<"):
        text = _headings(text)
    return whole_text(" ".join(text[:MOST_MESSAGE].split()))


def short_code(value: object) -> str:
    """A code in one line: of AWS's `com.amazon.service#Name:http://...` the name."""
    text = whole_text(" ".join(str(value)[:MOST_CODE].split()))
    return text.rpartition("#")[2].partition(":http")[0]


def xml_error(text: str) -> tuple[str, str] | None:
    """(code, message) of an error in XML, as S3 and AWS's query APIs have it; None if it is none.

    Format: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    if _XML_ERROR.match(text[:200]) is None:
        return None
    code, message = _element(text, "Code"), _element(text, "Message")
    return (short_code(code), one_line(message)) if code or message else None


def _element(text: str, name: str) -> str:
    # No XML parser: it would expand entities, and read a body that is cut not at all.
    _, found, rest = text.partition(f"<{name}>")
    return html.unescape(rest.partition("<")[0]) if found else ""


def _headings(page: str) -> str:
    """The title, headings and paragraphs of a page; the beginning of its text if it has none of them."""
    shown: list[str] = []
    for text in _texts(page, _SHOWN):
        if not any(text in earlier for earlier in shown):
            shown.append(text)
        if sum(map(len, shown)) > _MOST_PAGE:
            break
    return (": ".join(shown) or " ".join(_texts(page, None)))[:_MOST_PAGE]


def _texts(page: str, wanted: set[str] | None) -> Iterator[str]:
    """The texts in the wanted elements, in order; None: in all of them. Scripts and styles are left out."""
    inside, collected = "", list[str]()
    for place, part in enumerate(_TAG.split(page)):
        if place % 2 == 0:
            if inside not in _HIDDEN and (wanted is None or inside in wanted):
                collected.append(part)
            continue
        name = part.split(maxsplit=1)[0].lower() if part.strip() else ""
        if inside in _HIDDEN:
            inside = "" if name == f"/{inside}" else inside
        elif name in _HIDDEN:
            inside = name
        elif wanted is None or name.removeprefix("/") in wanted:
            yield from _joined(collected)
            inside = name
    yield from _joined(collected)


def _joined(collected: list[str]) -> Iterator[str]:
    """The collected text, if it is more than white space. Empties the list."""
    text = " ".join(html.unescape("".join(collected)).split())
    collected.clear()
    if text:
        yield text
