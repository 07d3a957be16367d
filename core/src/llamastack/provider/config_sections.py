"""Top-level keys of the run config that a package reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class ConfigSection:
    """One top-level key of the run config. `stack.config.section(name, model)` gives what stands there.

    name: the key.
    model: what it must be. Every field needs a default: a run config may leave the key out.
    description: for the reference and the JSON Schema.
    check: what `llamastack config validate` checks beside the model. It takes the `llamastack.Stack`, which is not
        started, and raises `llamastack.ConfigError`.
    """

    name: str
    model: type[BaseModel]
    description: str
    check: Callable[[Any], None] | None = None
