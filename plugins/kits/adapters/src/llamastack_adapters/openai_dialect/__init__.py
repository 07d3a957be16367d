"""The OpenAI dialect: translates native requests into it and its replies back, and has the base class of adapters.

Format: https://platform.openai.com/docs/api-reference/chat and /completions.
"""

from typing import TYPE_CHECKING

from llamastack.lazy_imports import lazy_getattr
from llamastack_adapters.openai_dialect.call_assembler import ToolCallAssembler
from llamastack_adapters.openai_dialect.config import OpenAIConfig, StreamUsageConfig
from llamastack_adapters.openai_dialect.openai_form_inference import (
    BackendReply,
    FormChatInference,
    FormCompletionInference,
)
from llamastack_adapters.openai_dialect.protocols import OpenAIForm, OpenAIProtocolPrivate, OpenAIRequest
from llamastack_adapters.openai_dialect.replies import (
    MALFORMED,
    chat_response,
    completion_response,
    embeddings_response,
    understood,
)
from llamastack_adapters.openai_dialect.replies_from_native import (
    chat_chunks,
    chat_reply,
    completion_chunks,
    completion_reply,
)
from llamastack_adapters.openai_dialect.requests import (
    Dialect,
    chat_body,
    completion_body,
    embeddings_body,
    unknown_field,
)
from llamastack_adapters.openai_dialect.requests_from_native import as_json_schema, chat_form, completion_form
from llamastack_adapters.openai_dialect.streams import chat_stream, completion_stream
from llamastack_adapters.openai_dialect.tool_calls import parse_arguments

__all__ = [
    "MALFORMED",
    "BackendReply",
    "Dialect",
    "FormChatInference",
    "FormCompletionInference",
    "OpenAIConfig",
    "OpenAIForm",
    "OpenAIInference",
    "OpenAIProtocolPrivate",
    "OpenAIRequest",
    "StreamUsageConfig",
    "ToolCallAssembler",
    "as_json_schema",
    "chat_body",
    "chat_chunks",
    "chat_form",
    "chat_reply",
    "chat_response",
    "chat_stream",
    "completion_body",
    "completion_chunks",
    "completion_form",
    "completion_reply",
    "completion_response",
    "completion_stream",
    "embeddings_body",
    "embeddings_response",
    "parse_arguments",
    "understood",
    "unknown_field",
]

if TYPE_CHECKING:
    from llamastack_adapters.openai_dialect.adapter import OpenAIInference
else:
    # perf: ready. It brings the HTTP client: a config and `/v1` do without, and the stack loads it in a worker thread.
    __getattr__ = lazy_getattr(__name__, (".adapter",), ("OpenAIInference",))
