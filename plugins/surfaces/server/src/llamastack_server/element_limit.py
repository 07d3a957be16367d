"""Refuses a JSON body with so many elements that validating them would stop the server, before it is decoded."""

from __future__ import annotations

from llamastack.provider.errors import InvalidRequestError

NUMBERS_IN_ONE = 20
"""So many numbers count as one element: validating a number takes that much less time."""


def refuse_more_elements(body: bytes, limit: int, numbers_in_one: int = NUMBERS_IN_ONE) -> None:
    """Raise InvalidRequestError for a body with more than `limit` texts (names of fields too), objects and lists.

    numbers_in_one: as many numbers, or other short values, count as one. The work is linear in the size of the body.
    """
    if len(body) <= 2 * limit:  # none is shorter than two bytes
        return
    # As few counts as possible: each takes as long as forwarding a small request.
    texts = body.count(b'"') // 2
    containers = body.count(b"{") + body.count(b"[")
    if texts + containers + len(body) // (2 * numbers_in_one) <= limit:
        return
    if texts + containers + (body.count(b",") + containers) // numbers_in_one <= limit:
        return
    # Marks inside texts do not count. Escaped characters are removed first, then quoted texts.
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = outside.count(b'"') // 2
    if texts > limit or texts + _marks(b"".join(outside.split(b'"')[::2]), numbers_in_one) > limit:
        raise InvalidRequestError(
            f"the body has more than {limit} elements (texts, names of fields, objects and lists; "
            f"{numbers_in_one} numbers count as one): 'server.max_body_elements' in the run config"
        )


def _marks(outside: bytes, numbers_in_one: int) -> int:
    containers = outside.count(b"{") + outside.count(b"[")
    return containers + (outside.count(b",") + containers) // numbers_in_one
