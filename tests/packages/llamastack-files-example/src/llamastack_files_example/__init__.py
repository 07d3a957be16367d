"""The provider types of the APIs `files` and `uploads`."""

from llamastack.provider import Capabilities, InlineProviderSpec

LOCAL = InlineProviderSpec(
    api="files",
    provider_type="local",
    description="Keeps files in the memory of the stack",
    config_class="llamastack_files_example.provider:LocalConfig",
    factory="llamastack_files_example.provider:get_adapter_impl",
    capabilities=Capabilities(upload="supported", registration="supported", unregister="supported"),
)
UPLOADS_LOCAL = InlineProviderSpec(
    api="uploads",
    provider_type="local",
    description="Keeps uploads in the memory of the stack",
    config_class="llamastack_files_example.uploads_provider:UploadsConfig",
    factory="llamastack_files_example.uploads_provider:get_adapter_impl",
    capabilities=Capabilities(),
)
