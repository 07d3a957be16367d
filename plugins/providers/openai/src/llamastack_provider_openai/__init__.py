"""Models of OpenAI, of Azure, and of every service that speaks OpenAI's API. The presets have a module of their own."""

from llamastack_provider_openai.specs import openai_spec

OPENAI = openai_spec(
    "remote::openai",
    config_class="llamastack_provider_openai.config:OpenAIProviderConfig",
    provider_data="llamastack_provider_openai.config:OpenAIProviderData",
    factory="llamastack_provider_openai.inference:get_adapter_impl",
    description="OpenAI, and every server that speaks its API",
)

AZURE = openai_spec(
    "remote::azure",
    config_class="llamastack_provider_openai.azure_config:AzureConfig",
    provider_data="llamastack_provider_openai.azure_config:AzureProviderData",
    factory="llamastack_provider_openai.azure:get_adapter_impl",
    description="Deployments of Azure OpenAI",
)
