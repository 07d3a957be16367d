"""The generated blocks about the presets of llamastack-provider-openai, made from the table of presets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from read_source import table

from llamastack.provider.capabilities import UNSUPPORTED
from llamastack_provider_openai.presets import PRESETS, Preset

_CAPABILITIES = {
    "completion": "text completions",
    "embeddings": "embeddings",
    "json_schema": "JSON schemas",
    "logprobs": "log probabilities",
}
_SAMPLERS = ("frequency_penalty", "presence_penalty", "logit_bias", "min_p")


def services(_: str) -> str:
    """A row for each service."""
    rows = (
        (
            f"`{preset.provider_type}`",
            f"[{preset.title}]({preset.source})",
            f"`{preset.url}`",
            f"`{preset.key_variable}`" if preset.key_variable else "",
            f"`{preset.key_field}`",
        )
        for preset in PRESETS
    )
    return table(
        ("provider type", "service, and its documentation", "`url`", "usual variable", "a client's own key"), rows
    )


def service_sections(_: str) -> str:
    """A section for each service: an example, and where it differs from OpenAI."""
    return "\n".join(_section(preset) for preset in PRESETS)


def _section(preset: Preset) -> str:
    lines = [f"### `{preset.provider_type}`", "", _facts(preset), "", "```yaml", *_example(preset), "```", ""]
    lines += [f"- {line}" for line in list(_differences(preset)) or ["No known differences."]]
    return "\n".join(lines) + "\n"


def _facts(preset: Preset) -> str:
    """The URL, the variable of the key and the source."""
    key = f"`{preset.key_variable}`" if preset.key_variable else "no usual variable"
    return f"URL: `{preset.url}`. Key: {key}. Source: [{preset.title}]({preset.source})."


def _example(preset: Preset) -> Iterator[str]:
    yield "providers:"
    yield "  inference:"
    yield f"  - provider_id: {preset.name}"
    yield f"    provider_type: {preset.provider_type}"
    if preset.key_needed:
        yield f'    config: {{api_key: "${{env.{preset.key_variable}}}"}}'
    else:
        yield f'    config: {{url: "{preset.url}"}}'


def _differences(preset: Preset) -> Iterator[str]:
    sent = _named_otherwise(preset)
    if sent:
        yield f"Sent by another name: {', '.join(f'`{ours}` as `{theirs}`' for ours, theirs in sent.items())}."
    more = [name for name, field in _sampling(preset).items() if field is not None and name not in _OF_OPENAI]
    if more:
        yield f"Beyond OpenAI's API: {_coded(more)}."
    lacks = [_CAPABILITIES[name] for name, word in preset.lacks.items() if word == UNSUPPORTED]
    lacks += [
        f"{_CAPABILITIES[name]} (this provider lacks them)"
        for name, word in preset.lacks.items()
        if word != UNSUPPORTED
    ]
    lacks += [f"`{name}`" for name in _OF_OPENAI if _sampling(preset)[name] is None]
    if lacks:
        yield f"Refused, because the service lacks it: {', '.join(lacks)}."
    if not preset.stream_options:
        yield "It does not take `stream_options`. A request with that field is translated, not forwarded."
    if not preset.lists_models:
        names = _coded(preset.models)
        yield f"It has no list of models: the names in `models` are served on trust, by default {names}."
    if preset.model_prefix:
        yield f"Write names of models without the `{preset.model_prefix}` of its list."
    if preset.headers:
        yield f"Headers that it knows, for `headers`: {_coded(preset.headers)}."
    if not preset.key_needed:
        yield "A key (`api_key`) is needed only if the server asks for one."
    if preset.note:
        yield preset.note


_OF_OPENAI = ("seed", "frequency_penalty", "presence_penalty", "logit_bias")


def _sampling(preset: Preset) -> dict[str, str | None]:
    """Parameters that not every service has -> its field for each."""
    own = {"seed": preset.seed, "top_k": preset.top_k, "repetition_penalty": preset.repetition_penalty}
    return own | {name: name if name in preset.samplers else None for name in _SAMPLERS}


def _named_otherwise(preset: Preset) -> dict[str, str]:
    pairs = {"max_tokens": preset.max_tokens, **_sampling(preset), **preset.other_names}
    return {ours: theirs for ours, theirs in pairs.items() if theirs not in (None, ours)}  # type: ignore[misc]


def _coded(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


BLOCKS: dict[str, Callable[[str], str]] = {
    "openai-services": services,
    "openai-service-sections": service_sections,
}
