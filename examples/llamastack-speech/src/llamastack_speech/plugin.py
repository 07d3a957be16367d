"""Adds the APIs. They are imported when a stack, a client or a command needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition


@hookimpl
def llamastack_apis() -> Sequence[ApiDefinition]:
    from llamastack_speech.api import APIS

    return APIS
