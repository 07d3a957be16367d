"""The provider type `store` of the API `jobs`."""

from llamastack.provider import Capabilities, InlineProviderSpec

STORE = InlineProviderSpec(
    api="jobs",
    provider_type="store",
    description="Keeps jobs in the stack's store and runs them in every worker",
    config_class="llamastack_provider_jobs.config:JobsConfig",
    factory="llamastack_provider_jobs.provider:get_provider_impl",
    optional_api_dependencies=("*",),
    capabilities=Capabilities(),
)
