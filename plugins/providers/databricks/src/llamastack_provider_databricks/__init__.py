"""Model serving endpoints of Databricks."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

DATABRICKS = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::databricks",
    config_class="llamastack_provider_databricks.config:DatabricksConfig",
    factory="llamastack_provider_databricks.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_databricks.config:DatabricksProviderData",
    description="Model serving endpoints of Databricks",
    capabilities=Capabilities(
        chat_completion="supported",
        completion="supported",
        embeddings="supported",
        images="supported",
        json_schema="supported",
        logprobs="supported",
        registration="unsupported",
        streaming="supported",
        tools="supported",
        unregister="unsupported",
    ),
)
