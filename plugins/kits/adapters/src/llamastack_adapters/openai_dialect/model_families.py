"""How model families differ in the fields of a chat that they take, by the names of models, whatever service runs them.

It counts for native and translated calls of every provider that speaks OpenAI's dialect; forwarded requests stay as
they are. `model_families` in a provider's config names the family of a model if the table does not know it or is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamastack.provider.errors import NotSupportedError
from llamastack_adapters.openai_dialect.protocols import OpenAIForm

__all__ = ["FAMILIES", "FamilyName", "FamilyOf", "ModelFamily", "families", "no_family"]

FamilyName = Literal["plain", "openai-chat", "openai-reasoning", "openai-first-reasoning"]
"""The families by name; `plain` takes all fields of the dialect."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What is special about a family of models.

    name: for people and for configs.
    models: a pattern of model names, in lower case and without the part before the last `/`.
    max_tokens: the field for the longest reply, if it is not the backend's usual one.
    lacks: fields of OpenAI's form that the models refuse.
    system_role: the role of instructions.
    """

    name: FamilyName
    models: str
    max_tokens: str | None = None
    lacks: frozenset[str] = frozenset()
    system_role: str = "system"

    def adapted(self, form: OpenAIForm, provider_id: str) -> OpenAIForm:
        """The form as these models take it.

        A field in `lacks` is left out if it asks for what the models do anyway, or is a temperature of 0, the native
        default. Raises NotSupportedError, naming the native parameter, for another value.
        """
        fields = dict(form.fields)
        for name in [name for name in fields if name in self.lacks]:
            value = fields.pop(name)
            if value not in _SAYS_NOTHING.get(name, ()):
                param = name if name == "logprobs" else f"sampling_params.{name}"
                raise NotSupportedError(
                    f"model '{form.model}' of provider '{provider_id}' does not take '{name}' (model family "
                    f"'{self.name}'; 'model_families' in the provider's config names another)",
                    provider_id=provider_id,
                    param=param,
                )
        if self.system_role != "system" and "messages" in fields:
            fields["messages"] = [self._message(message) for message in fields["messages"]]
        return OpenAIForm(form.model, fields, form.stream, form.extra)

    def _message(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**message, "role": self.system_role} if message["role"] == "system" else message


_SAYS_NOTHING: dict[str, tuple[float, ...]] = {
    "temperature": (0.0, 1.0),
    "top_p": (1.0,),
    "frequency_penalty": (0.0,),
    "presence_penalty": (0.0,),
}
_NO_SAMPLING = frozenset({
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "stop",
})  # fmt: skip

FAMILIES: tuple[ModelFamily, ...] = (
    # They take no instructions: "'messages[0].role' does not support 'system' with this model".
    # https://platform.openai.com/docs/guides/reasoning and https://community.openai.com/t/1025430
    ModelFamily(
        "openai-first-reasoning",
        r"o1-(preview|mini)(-.*)?",
        max_tokens="max_completion_tokens",
        lacks=_NO_SAMPLING - {"logit_bias", "stop"},
        system_role="user",
    ),
    # Models of ChatGPT do not reason: https://platform.openai.com/docs/models/gpt-5-chat-latest
    ModelFamily("openai-chat", r"gpt-5(\.\d+)?-chat(-.*)?", max_tokens="max_completion_tokens"),
    # "max_tokens ... is not compatible with o-series models", and `developer` messages replace `system` ones:
    # https://platform.openai.com/docs/api-reference/chat/create. Sampling and log probabilities are unsupported:
    # https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning#api--feature-support. `stop` is refused:
    # https://github.com/BerriAI/litellm/pull/15244.
    ModelFamily(
        "openai-reasoning",
        r"(ft:)?(o[1-9]\d*|gpt-[5-9](\.\d+)?|codex-mini)([-:].*)?",
        max_tokens="max_completion_tokens",
        lacks=_NO_SAMPLING,
        system_role="developer",
    ),
)
"""The first family whose pattern matches a name counts."""

_BY_NAME = {family.name: family for family in FAMILIES}
_PATTERNS = [(re.compile(family.models), family) for family in FAMILIES]
FamilyOf = Callable[[str], ModelFamily | None]
"""Finds the family of a model by the backend's name for it; None for a plain model."""


def no_family(model: str) -> ModelFamily | None:
    """For backends whose names of models do not tell the family."""
    return None


def families(overrides: Mapping[str, FamilyName]) -> FamilyOf:
    """Looks a model up in `overrides`, then in the table, by the backend's name."""
    known: dict[str, ModelFamily | None] = {name: _BY_NAME.get(family) for name, family in overrides.items()}

    def family_of(model: str) -> ModelFamily | None:
        if model not in known:
            if len(known) > _MOST_KNOWN:
                return _found(model)
            known[model] = _found(model)
        return known[model]

    return family_of


_MOST_KNOWN = 10_000


def _found(model: str) -> ModelFamily | None:
    name = model.rpartition("/")[2].lower()
    return next((family for pattern, family in _PATTERNS if pattern.fullmatch(name)), None)
