"""The suite of the API memory."""

from __future__ import annotations

from llamastack_conformance.suites.memory_contents import ContentChecks
from llamastack_conformance.suites.memory_documents import DocumentChecks


class MemoryConformance(ContentChecks, DocumentChecks):
    """All checks of a memory provider. Source of the shapes: `llamastack.api.memory`."""
