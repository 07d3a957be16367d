"""The blocks of docs/api-reference.md: all that the author of an API imports beside what authors of providers do."""

from __future__ import annotations

import re
from collections.abc import Callable

from provider_reference import helper
from reference_text import type_names

API_MODULES = (
    "llamastack.api.webmethod",
    "llamastack.api.definition",
    "llamastack.provider.builtin_apis",
    "llamastack.api.files",
    "llamastack.api.pagination",
    "llamastack.api.created_ids",
    "llamastack.client",
    "llamastack.stack",
    "llamastack_conformance",
    "llamastack_conformance.suites.suite",
    "llamastack_conformance.checks",
    "llamastack_conformance.running",
    "llamastack_conformance.provider_under_test",
)
"""The modules of the page, in its order."""
_ANCHORS = {name.lower() for name in type_names()}


def api_helper(name: str) -> str:
    """One module; the types of the built-in APIs are on another page."""

    def link(found: re.Match[str]) -> str:
        return f"](provider-reference.md#{found[1]})" if found[1] in _ANCHORS else found[0]

    return re.sub(r"\]\(#([\w-]+)\)", link, helper(name))


BLOCKS: dict[str, Callable[[str], str]] = {"api-helper": api_helper}
