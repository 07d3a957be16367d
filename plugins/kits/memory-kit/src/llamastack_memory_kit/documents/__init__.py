"""The text of a document: content, a data: URL or an http(s) URL, as plain text, HTML, PDF, DOCX, CSV or JSON."""

from llamastack_memory_kit.documents.extraction import ExtractionLimits
from llamastack_memory_kit.documents.outline import Heading, ReadDocument
from llamastack_memory_kit.documents.reading import document_text, read_document

__all__ = ["ExtractionLimits", "Heading", "ReadDocument", "document_text", "read_document"]
