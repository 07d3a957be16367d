"""Ids that say which instance made them.

A method that `creates="agent_id"` returns an id that belongs to the instance which made it. The stack appends the mark
of the instance: `5f0c` becomes `5f0c~k3v7qz2a`. A later call that names this id goes to that instance, after a restart
and in every worker, too, and the instance gets its own id back.

The mark stands at the end, as the beginning may tell the kind of an id (`file-...`). All of its characters may stand in
a URL as they are. It depends only on the API and the provider_id.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

PROVIDER_ID = "provider_id"
"""The argument that names an instance. The stack reads it; a provider does not get it."""
_MARK = re.compile(r"~[a-z2-7]{8}\Z")


@dataclass(frozen=True, slots=True)
class IdOf:
    """Says that a field or an argument of another name holds such an id: `id: Annotated[str, IdOf("file_id")]`.

    name: the name of the id, as `creates` has it.
    """

    name: str


def mark_of(api: str, provider_id: str) -> str:
    """The end of every id that this instance made."""
    digest = hashlib.sha256(f"{api}/{provider_id}".encode()).digest()
    return "~" + base64.b32encode(digest[:5]).decode().lower()


def mark_in(marked: str) -> str:
    """The mark that an id ends with; empty for an id without one."""
    found = _MARK.search(marked)
    return found[0] if found else ""
