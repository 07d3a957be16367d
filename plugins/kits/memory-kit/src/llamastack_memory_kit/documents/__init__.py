"""The text of a document: content, a data: URL or an http(s) URL, as plain text, HTML or PDF."""

from llamastack_memory_kit.documents.extraction import ExtractionLimits
from llamastack_memory_kit.documents.reading import document_text

__all__ = ["ExtractionLimits", "document_text"]
