"""Models served by vLLM: by a server elsewhere, or by one that the stack starts."""

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
    description="A model by vLLM, in a process of the stack's own; needs the package vllm",
    single_process=True,  # a vLLM takes its GPUs for itself
    capabilities=_CAPABILITIES,
)
