"""What tests of stacks with scripted providers share beside the fixtures."""

from __future__ import annotations

from collections.abc import Callable

from scripted_fake import Script

from llamastack.stack import Stack

Scripted = Callable[..., Stack]
"""The fixture `scripted`."""
Scripts = Callable[..., Script]
"""The fixture `script`."""


async def names(stack: Stack) -> list[str]:
    """The models that a stack lists."""
    return [model.identifier for model in await stack.models.list_models()]
