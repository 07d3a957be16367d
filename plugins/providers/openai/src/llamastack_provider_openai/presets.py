"""Services that speak OpenAI's API and differ only in data: a row for each, and a provider type for each row.

A row follows the documentation of its service (`source`); other fields are as at OpenAI. A row
says nothing about model families: one service has models of many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from llamastack.provider import RemoteProviderSpec
from llamastack_provider_openai.specs import openai_spec

OPENAI_SAMPLERS = ("frequency_penalty", "presence_penalty", "logit_bias")
_PENALTIES = ("frequency_penalty", "presence_penalty")
_ALL_SAMPLERS = (*OPENAI_SAMPLERS, "min_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One service.

    name: its provider type is `remote::NAME`.
    title: what people call it.
    url: base URL, as an OpenAI client takes it.
    source: the documentation that the row follows.
    key_variable: the environment variable that usually holds its key; "" if there is no usual one.
    key_needed: whether every call needs a key.
    lists_models: whether it has a list of models.
    models: names of models that it has, for a service that lists none.
    model_prefix: the prefix of each name in its list, which callers leave out.
    max_tokens: its field of a chat for the longest reply.
    top_k: its field for top_k sampling; None if it has none.
    repetition_penalty: its field for a repetition penalty; None if it has none.
    seed: its field for a seed; None if it has none.
    samplers: which of frequency_penalty, presence_penalty, logit_bias and min_p it has.
    tool_choice_required: the value of `tool_choice` by which a tool must be called.
    stream_options: whether it takes `stream_options`, by which a stream reports its usage.
    other_names: fields of OpenAI's API that it takes only by another name.
    lacks: capabilities that it does not have -> `unsupported`, or `not implemented` where it has them in another form.
    headers: names of optional headers that it knows.
    note: what else people should know.
    """

    name: str
    title: str
    url: str
    source: str
    key_variable: str = ""
    key_needed: bool = True
    lists_models: bool = True
    models: tuple[str, ...] = ()
    model_prefix: str = ""
    max_tokens: str = "max_tokens"
    top_k: str | None = None
    repetition_penalty: str | None = None
    seed: str | None = "seed"
    samplers: tuple[str, ...] = OPENAI_SAMPLERS
    tool_choice_required: str = "required"
    stream_options: bool = True
    other_names: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    note: str = ""

    @property
    def provider_type(self) -> str:
        return f"remote::{self.name}"

    @property
    def attribute(self) -> str:
        """The name as Python has it."""
        return self.name.replace("-", "_")

    @property
    def key_field(self) -> str:
        """The field of the provider data that holds a client's own key."""
        return f"{self.attribute}_api_key"

    @property
    def class_prefix(self) -> str:
        """How the names of its config class and its provider data begin."""
        return "".join(part.capitalize() for part in self.name.split("-"))


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="cerebras",
        title="Cerebras Inference",
        url="https://api.cerebras.ai/v1",
        source="https://inference-docs.cerebras.ai/resources/openai",
        key_variable="CEREBRAS_API_KEY",
        max_tokens="max_completion_tokens",
        samplers=(),
        lacks={"embeddings": "unsupported"},
        note="`parallel_tool_calls` and `service_tier` are a 400.",
    ),
    Preset(
        name="deepinfra",
        title="DeepInfra",
        url="https://api.deepinfra.com/v1/openai",
        source="https://deepinfra.com/docs/advanced/openai_api",
        key_variable="DEEPINFRA_API_KEY",
    ),
    Preset(
        name="deepseek",
        title="DeepSeek",
        url="https://api.deepseek.com",
        source="https://api-docs.deepseek.com/api/create-chat-completion",
        key_variable="DEEPSEEK_API_KEY",
        seed=None,
        samplers=_PENALTIES,
        lacks={"completion": "not implemented", "embeddings": "unsupported", "json_schema": "unsupported"},
        note="`/v1` takes the `response_format` `json_object`. Its text completions are a beta at another URL.",
    ),
    Preset(
        name="gemini",
        title="Google Gemini",
        url="https://generativelanguage.googleapis.com/v1beta/openai",
        source="https://ai.google.dev/gemini-api/docs/openai",
        key_variable="GEMINI_API_KEY",
        model_prefix="models/",
        seed=None,
        samplers=("presence_penalty", "logit_bias"),
        lacks={"completion": "unsupported"},
        note="Unknown fields, such as `seed` or `frequency_penalty`, are a 400.",
    ),
    Preset(
        name="groq",
        title="Groq",
        url="https://api.groq.com/openai/v1",
        source="https://console.groq.com/docs/openai",
        key_variable="GROQ_API_KEY",
        max_tokens="max_completion_tokens",
        samplers=_PENALTIES,
        lacks={"completion": "unsupported", "embeddings": "unsupported", "logprobs": "unsupported"},
        note="`n` must be 1; `logit_bias`, log probabilities and the `name` of a message are a 400.",
    ),
    Preset(
        name="llama-cpp",
        title="llama.cpp's server (llama-server)",
        url="http://127.0.0.1:8080/v1",
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        key_variable="LLAMA_API_KEY",
        key_needed=False,
        top_k="top_k",
        repetition_penalty="repeat_penalty",
        samplers=_ALL_SAMPLERS,
        note="Embeddings need a server that was started with `--embeddings`.",
    ),
    Preset(
        name="lmstudio",
        title="LM Studio",
        url="http://127.0.0.1:1234/v1",
        source="https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
        key_variable="LM_API_TOKEN",
        key_needed=False,
        top_k="top_k",
        repetition_penalty="repeat_penalty",
    ),
    Preset(
        name="mistral",
        title="Mistral AI",
        url="https://api.mistral.ai/v1",
        source="https://docs.mistral.ai/api/",
        key_variable="MISTRAL_API_KEY",
        seed="random_seed",
        samplers=_PENALTIES,
        tool_choice_required="any",
        stream_options=False,
        other_names={"max_completion_tokens": "max_tokens"},
        lacks={"completion": "not implemented", "logprobs": "unsupported"},
        note="Unknown fields are a 422. Streams always report their usage.",
    ),
    Preset(
        name="moonshot",
        title="Moonshot AI (Kimi)",
        url="https://api.moonshot.ai/v1",
        source="https://platform.kimi.ai/docs/api/overview",
        key_variable="MOONSHOT_API_KEY",
        lacks={"completion": "unsupported", "embeddings": "unsupported"},
    ),
    Preset(
        name="nvidia",
        title="NVIDIA NIM",
        url="https://integrate.api.nvidia.com/v1",
        source="https://docs.nvidia.com/nim/large-language-models/latest/api-reference.html",
        key_variable="NVIDIA_API_KEY",
        note="For a NIM of your own, give its `url`, such as `http://gpu-1:8000/v1`, and any key.",
    ),
    Preset(
        name="openrouter",
        title="OpenRouter",
        url="https://openrouter.ai/api/v1",
        source="https://openrouter.ai/docs/api-reference/parameters",
        key_variable="OPENROUTER_API_KEY",
        top_k="top_k",
        repetition_penalty="repetition_penalty",
        samplers=_ALL_SAMPLERS,
        headers=("HTTP-Referer", "X-Title"),
        note="What a field does depends on the model and on the service that runs it.",
    ),
    Preset(
        name="perplexity",
        title="Perplexity Sonar",
        url="https://api.perplexity.ai",
        source="https://docs.perplexity.ai/docs/sonar/openai-compatibility",
        key_variable="PERPLEXITY_API_KEY",
        lists_models=False,
        models=("sonar", "sonar-pro"),
        top_k="top_k",
        seed=None,
        samplers=_PENALTIES,
        stream_options=False,
        lacks={"completion": "unsupported", "embeddings": "not implemented"},
        note="Its embeddings have a form of their own.",
    ),
    Preset(
        name="sambanova",
        title="SambaNova Cloud",
        url="https://api.sambanova.ai/v1",
        source="https://docs.sambanova.ai/docs/en/features/openai-compatibility",
        key_variable="SAMBANOVA_API_KEY",
        top_k="top_k",
        seed=None,
        samplers=_PENALTIES,
        lacks={"logprobs": "unsupported"},
        note="`n` has no effect yet.",
    ),
    Preset(
        name="sglang",
        title="SGLang's server",
        url="http://127.0.0.1:30000/v1",
        source="https://docs.sglang.ai/basic_usage/openai_api.html",
        key_needed=False,
        top_k="top_k",
        repetition_penalty="repetition_penalty",
        samplers=_ALL_SAMPLERS,
    ),
    Preset(
        name="xai",
        title="xAI",
        url="https://api.x.ai/v1",
        source="https://docs.x.ai/developers/rest-api-reference/inference/chat",
        key_variable="XAI_API_KEY",
        max_tokens="max_completion_tokens",
        lacks={"embeddings": "unsupported"},
        note="Reasoning models take neither penalties nor `stop`, and no text completions.",
    ),
)
"""By name. A test compares them with the entry points in `pyproject.toml`."""


def _spec(preset: Preset) -> RemoteProviderSpec:
    module = "llamastack_provider_openai.preset_config"
    return openai_spec(
        preset.provider_type,
        config_class=f"{module}:{preset.class_prefix}Config",
        provider_data=f"{module}:{preset.class_prefix}ProviderData",
        factory="llamastack_provider_openai.inference:get_preset_impl",
        description=f"Models of {preset.title}",
        lacks=preset.lacks,
    )


SPECS = SimpleNamespace(**{preset.attribute: _spec(preset) for preset in PRESETS})
"""The spec of each preset, for the entry points: `SPECS.groq`."""
