"""How many elements a JSON body has, without reading it as JSON: so many that to check them would stop the server?"""

from __future__ import annotations

from llamastack.provider.errors import InvalidRequestError

_NUMBERS_IN_ONE = 10
"""As many numbers count as one element: they take as much less time."""


def refuse_more_elements(body: bytes, limit: int) -> None:
    """Raise InvalidRequestError for a body with more than `limit` texts (names of fields too), objects and lists.

    Ten numbers, or other short values, count as one. The work is linear in the size of the body.
    """
    if len(body) <= 2 * limit:  # none is shorter than two bytes
        return
    if _at_most(body, body.count(b'"') // 2) <= limit:
        return
    # Marks inside texts are none. What is escaped goes first, then what is between quotation marks.
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = outside.count(b'"') // 2
    if texts > limit or _at_most(b"".join(outside.split(b'"')[::2]), texts) > limit:
        raise InvalidRequestError(
            f"the body has more than {limit} elements (texts, names of fields, objects and lists; "
            f"{_NUMBERS_IN_ONE} numbers count as one): 'server.max_body_elements' in the run config"
        )


def _at_most(text: bytes, texts: int) -> int:
    containers = text.count(b"{") + text.count(b"[")
    return texts + containers + (text.count(b",") + containers) // _NUMBERS_IN_ONE
