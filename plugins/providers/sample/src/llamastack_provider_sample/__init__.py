"""The smallest working provider of every API: it repeats its input."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

INFERENCE = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::sample",
    description="Repeats the last message",
    config_class="llamastack_provider_sample.config:SampleInferenceConfig",
    factory="llamastack_provider_sample.inference:get_adapter_impl",
    capabilities=Capabilities(
        chat_completion="supported",
        completion="supported",
        embeddings="unsupported",
        images="unsupported",
        json_schema="unsupported",
        logprobs="unsupported",
        registration="unsupported",
        streaming="supported",
        tools="unsupported",
        unregister="unsupported",
    ),
)

SAFETY = RemoteProviderSpec(
    api=Api.safety,
    provider_type="remote::sample",
    description="Refuses messages that contain a forbidden word",
    config_class="llamastack_provider_sample.config:SampleSafetyConfig",
    factory="llamastack_provider_sample.safety:get_adapter_impl",
    capabilities=Capabilities(run_shield="supported", registration="supported", unregister="supported"),
)

MEMORY = RemoteProviderSpec(
    api=Api.memory,
    provider_type="remote::sample",
    description="Keeps documents in a dict and finds them by shared words",
    config_class="llamastack_provider_sample.config:SampleMemoryConfig",
    factory="llamastack_provider_sample.memory:get_adapter_impl",
    single_process=True,
    capabilities=Capabilities(
        insert_documents="supported",
        query_documents="supported",
        vector_search="unsupported",
        keyword_search="supported",
        hybrid_search="unsupported",
        filters="supported",
        delete_documents="supported",
        ttl="supported",
        registration="supported",
        unregister="supported",
    ),
)

AGENTS = RemoteProviderSpec(
    api=Api.agents,
    provider_type="remote::sample",
    description="Answers each turn with one inference call",
    config_class="llamastack_provider_sample.config:SampleAgentsConfig",
    factory="llamastack_provider_sample.agents:get_adapter_impl",
    api_dependencies=(Api.inference,),
    capabilities=Capabilities(
        create_agent="supported",
        create_session="supported",
        create_turn="supported",
        delete_agent="supported",
        delete_session="supported",
        get_session="supported",
        get_step="supported",
        get_turn="supported",
        streaming="supported",
    ),
)

TELEMETRY = RemoteProviderSpec(
    api=Api.telemetry,
    provider_type="remote::sample",
    description="Keeps the newest traces in memory",
    config_class="llamastack_provider_sample.config:SampleTelemetryConfig",
    factory="llamastack_provider_sample.telemetry:get_adapter_impl",
    single_process=True,
    capabilities=Capabilities(
        log_event="supported", get_trace="supported", list_traces="unsupported", list_spans="unsupported"
    ),
)
