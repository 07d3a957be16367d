"""The provider type `durable` of the API `jobs`."""

from llamastack.provider import Capabilities, InlineProviderSpec

DURABLE = InlineProviderSpec(
    api="jobs",
    provider_type="durable",
    description="Keeps jobs in the stack's store and runs them in every worker",
    config_class="llamastack_provider_jobs.config:JobsConfig",
    factory="llamastack_provider_jobs.provider:get_provider_impl",
    optional_api_dependencies=("*",),
    capabilities=Capabilities(),
)
