"""The conformance suite of llamastack providers: `pytest --llamastack-provider API=TYPE --llamastack-config FILE`.

Or inherit from the suite of the provider's API:

```python
class TestAcme(InferenceConformance):
    provider_type = "remote::acme"
    config = Path(__file__).parent / "provider.yaml"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr

if TYPE_CHECKING:
    from llamastack_conformance.suites.agents import AgentsConformance
    from llamastack_conformance.suites.inference import InferenceConformance
    from llamastack_conformance.suites.memory import MemoryConformance
    from llamastack_conformance.suites.plugin_api import (
        MethodChecks,
        PluginApiConformance,
        RoutedPluginApiConformance,
    )
    from llamastack_conformance.suites.safety import SafetyConformance
    from llamastack_conformance.suites.store import StoreConformance
    from llamastack_conformance.suites.telemetry import TelemetryConformance

__all__ = [
    "AgentsConformance",
    "InferenceConformance",
    "MemoryConformance",
    "MethodChecks",
    "PluginApiConformance",
    "RoutedPluginApiConformance",
    "SafetyConformance",
    "StoreConformance",
    "TelemetryConformance",
]
SUITES = {api: f"{api.capitalize()}Conformance" for api in ("agents", "inference", "memory", "safety", "telemetry")}
"""API -> the name of its suite here."""

if not TYPE_CHECKING:
    # pytest imports this package in every run; the suites import the core, which most runs do not need.
    __getattr__ = lazy_getattr(
        __name__,
        (
            ".suites.inference",
            ".suites.memory",
            ".suites.safety",
            ".suites.telemetry",
            ".suites.agents",
            ".suites.plugin_api",
            ".suites.store",
        ),
        __all__,
    )
