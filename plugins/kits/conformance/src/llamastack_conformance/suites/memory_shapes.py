"""The checks of memory that are about the shapes of data."""

from __future__ import annotations

from llamastack_conformance.suites.memory_banks import BankChecks
from llamastack_conformance.suites.memory_contents import ContentChecks
from llamastack_conformance.suites.memory_embeddings import EmbeddingFaultChecks
from llamastack_conformance.suites.memory_expiry import ExpiryChecks
from llamastack_conformance.suites.memory_names import NameChecks
from llamastack_conformance.suites.memory_queries import QueryChecks
from llamastack_conformance.suites.memory_replacing import ReplacingChecks


class ShapeChecks(
    BankChecks, EmbeddingFaultChecks, ExpiryChecks, QueryChecks, ReplacingChecks, NameChecks, ContentChecks
):
    """Contents, embeddings, names, metadata, params and expiry: long, many, odd, at their limits."""
