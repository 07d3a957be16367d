"""Names of span attributes, and what calls are named after.

Source: OpenTelemetry's GenAI semantic conventions, v0.1.0 (https://github.com/open-telemetry/semantic-conventions-genai),
and the HTTP conventions, 1.40.0 (https://opentelemetry.io/docs/specs/semconv/http/http-spans/). Both move between
packages and versions, so the names stand here. Names that begin with `llamastack.` are our own.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""Names the version of the GenAI conventions that spans keep to."""

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
"""Of the input tokens, those that came from a cache."""
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
QUERY_TEXT: Final = "gen_ai.retrieval.query.text"
CONTENT_DROPPED: Final = "llamastack.content.dropped"
"""True if there was no room for the content of the call."""
DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
AGENT_ID: Final = "gen_ai.agent.id"
CONVERSATION_ID: Final = "gen_ai.conversation.id"

ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
URL_PATH: Final = "url.path"

API: Final = "llamastack.api"
METHOD: Final = "llamastack.method"
OBJECT: Final = "llamastack.object"
"""The model, shield or memory bank that a call is for."""
PROVIDER_ID: Final = "llamastack.provider_id"
PROVIDER_TYPE: Final = "llamastack.provider_type"
REQUEST_ID: Final = "llamastack.request_id"
CANCELLED: Final = "llamastack.cancelled"
COST: Final = "llamastack.cost"
"""In units of the currency; there is none where the model has no price or the tokens are not known."""
COST_CURRENCY: Final = "llamastack.cost.currency"

OPERATIONS: Final = {
    ("inference", "chat_completion"): "chat",
    ("inference", "completion"): "text_completion",
    ("inference", "embeddings"): "embeddings",
    ("memory", "query_documents"): "retrieval",
    ("agents", "create_agent"): "create_agent",
    ("agents", "create_agent_turn"): "invoke_agent",
}
"""API and method to the operation; calls of others have none."""

_PROVIDER_NAMES = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}


def provider_name(provider_type: str) -> str:
    """The value of `gen_ai.provider.name`: one that the conventions know, else the type without `remote::`."""
    bare = provider_type.removeprefix("remote::")
    return _PROVIDER_NAMES.get(bare, bare)
