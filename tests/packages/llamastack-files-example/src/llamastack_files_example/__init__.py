"""The provider type `local` of the API `files`."""

from llamastack.provider import Capabilities, InlineProviderSpec

LOCAL = InlineProviderSpec(
    api="files",
    provider_type="local",
    description="Keeps files in the memory of the stack",
    config_class="llamastack_files_example.provider:LocalConfig",
    factory="llamastack_files_example.provider:get_adapter_impl",
    capabilities=Capabilities(upload="supported", registration="supported", unregister="supported"),
)
