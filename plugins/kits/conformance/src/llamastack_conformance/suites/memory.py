"""The suite of the API memory."""

from __future__ import annotations

from llamastack_conformance.suites.memory_concurrency import ConcurrencyChecks
from llamastack_conformance.suites.memory_documents import DocumentChecks
from llamastack_conformance.suites.memory_faults import FaultChecks
from llamastack_conformance.suites.memory_instances import InstanceChecks
from llamastack_conformance.suites.memory_modes import ModeChecks
from llamastack_conformance.suites.memory_restart import RestartedDocumentChecks
from llamastack_conformance.suites.memory_shapes import ShapeChecks


class MemoryConformance(
    ConcurrencyChecks,
    ShapeChecks,
    DocumentChecks,
    ModeChecks,
    RestartedDocumentChecks,
    InstanceChecks,
    FaultChecks,
):
    """All checks of a memory provider. Source of the shapes: `llamastack.api.memory`."""
