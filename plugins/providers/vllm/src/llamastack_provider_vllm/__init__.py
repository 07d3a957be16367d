"""Models served by vLLM: by a running server, or by a server that the stack starts."""

from llamastack.provider import Api, InlineProviderSpec, RemoteProviderSpec
from llamastack_adapters.capabilities import inference_capabilities

_CAPABILITIES = inference_capabilities()

REMOTE_VLLM = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::vllm",
    config_class="llamastack_provider_vllm.config:RemoteVLLMConfig",
    factory="llamastack_provider_vllm.inference:get_adapter_impl",
    provider_data_validator="llamastack_provider_vllm.config:VLLMProviderData",
    description="Models of a vLLM server",
    capabilities=_CAPABILITIES,
)

VLLM = InlineProviderSpec(
    api=Api.inference,
    provider_type="vllm",
    config_class="llamastack_provider_vllm.config:VLLMConfig",
    factory="llamastack_provider_vllm.engine:get_provider_impl",
    description="A model served by a vLLM process that the stack starts; needs the package vllm",
    single_process=True,  # a vLLM needs its GPUs exclusively
    capabilities=_CAPABILITIES,
)
