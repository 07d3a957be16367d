"""Model serving endpoints of Databricks."""

from llamastack.provider import Api, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

DATABRICKS = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::databricks",
    config_class="llamastack_provider_databricks.config:DatabricksConfig",
    factory="llamastack_provider_databricks.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_databricks.config:DatabricksProviderData",
    description="Model serving endpoints of Databricks",
    capabilities=inference_capabilities(),
)
