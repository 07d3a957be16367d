"""The OpenAI dialect, both ways: native requests out, chat and text completions back; and the base of its adapters.

Format: https://platform.openai.com/docs/api-reference/chat and /completions.
"""

from llamastack_adapters.openai_dialect.adapter import OpenAIConfig, OpenAIInference, StreamUsageConfig
from llamastack_adapters.openai_dialect.call_assembler import ToolCallAssembler
from llamastack_adapters.openai_dialect.replies import (
    chat_response,
    completion_response,
    embeddings_response,
    understood,
)
from llamastack_adapters.openai_dialect.requests import (
    Dialect,
    as_json_schema,
    chat_request,
    completion_request,
    embeddings_request,
)
from llamastack_adapters.openai_dialect.streams import chat_stream, completion_stream
from llamastack_adapters.openai_dialect.tool_calls import parse_arguments

__all__ = [
    "Dialect",
    "OpenAIConfig",
    "OpenAIInference",
    "StreamUsageConfig",
    "ToolCallAssembler",
    "as_json_schema",
    "chat_request",
    "chat_response",
    "chat_stream",
    "completion_request",
    "completion_response",
    "completion_stream",
    "embeddings_request",
    "embeddings_response",
    "parse_arguments",
    "understood",
]
