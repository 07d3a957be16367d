"""The vocabulary: one module per API with its Protocol and its types.

Names are imported on first use, so `from llamastack.api import UserMessage` costs what it needs and no more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr


class Api(StrEnum):
    """The built-in APIs that a provider can implement. An API of a plugin is named by its plain string."""

    inference = "inference"
    safety = "safety"
    memory = "memory"
    agents = "agents"
    telemetry = "telemetry"


if TYPE_CHECKING:
    from llamastack.api.agent_tools import *
    from llamastack.api.agents import *
    from llamastack.api.common import *
    from llamastack.api.files import *
    from llamastack.api.inference import *
    from llamastack.api.inspect import *
    from llamastack.api.memory import *
    from llamastack.api.memory_banks import *
    from llamastack.api.models import *
    from llamastack.api.pagination import *
    from llamastack.api.safety import *
    from llamastack.api.shields import *
    from llamastack.api.telemetry import *
else:
    __getattr__ = lazy_getattr(
        __name__,
        (
            ".common",
            ".inference",
            ".models",
            ".safety",
            ".shields",
            ".memory",
            ".memory_banks",
            ".telemetry",
            ".inspect",
            ".agent_tools",
            ".agents",
            ".files",
            ".pagination",
        ),
    )
