"""The suite of the API memory."""

from __future__ import annotations

from llamastack_conformance.suites.memory_documents import DocumentChecks


class MemoryConformance(DocumentChecks):
    """All checks of a memory provider. Source of the shapes: `llamastack.api.memory`."""
