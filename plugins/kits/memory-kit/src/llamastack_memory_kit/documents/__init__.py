"""The text of a document that may be content, a data: URL or an http(s) URL; plain text, HTML and PDF are read."""

from llamastack_memory_kit.documents.extraction import ExtractionLimits
from llamastack_memory_kit.documents.reading import document_text

__all__ = ["ExtractionLimits", "document_text"]
