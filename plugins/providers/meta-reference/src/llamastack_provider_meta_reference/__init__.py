"""Providers that need no service."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

TELEMETRY = InlineProviderSpec(
    api=Api.telemetry,
    provider_type="meta-reference",
    description="Keeps traces and events in a SQLite file, and writes them to the console",
    config_class="llamastack_provider_meta_reference.telemetry.config:TelemetryConfig",
    factory="llamastack_provider_meta_reference.telemetry.provider:get_provider_impl",
    capabilities=Capabilities(
        log_event="supported", get_trace="supported", list_traces="supported", list_spans="supported"
    ),
)

MEMORY = InlineProviderSpec(
    api=Api.memory,
    provider_type="meta-reference",
    description="Vector, keyword, keyvalue and graph banks in one SQLite file, with FAISS for vectors",
    config_class="llamastack_provider_meta_reference.memory.config:MemoryConfig",
    factory="llamastack_provider_meta_reference.memory.provider:get_provider_impl",
    api_dependencies=(Api.inference,),
    optional_api_dependencies=("models",),
    capabilities=Capabilities(
        delete_documents="supported",
        filters="supported",
        hybrid_search="supported",
        insert_documents="supported",
        keyword_search="supported",
        query_documents="supported",
        registration="supported",
        ttl="supported",
        unregister="supported",
        vector_search="supported",
    ),
)
