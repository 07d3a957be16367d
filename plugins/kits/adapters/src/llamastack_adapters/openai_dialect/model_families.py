"""How families of models differ in what they take of a chat, by the names of models and whoever serves them.

Counts for native and translated calls of every provider that speaks OpenAI's dialect; forwarded requests stay as they
are. `model_families` in a provider's config says of which family a model is that the table does not tell, or wrongly.
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
"""A family by its name; `plain` takes all that the dialect has."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What is special about models.

    name: for people and for configs.
    models: a pattern of their names, in small letters and without what stands before the last `/`.
    max_tokens: the field for the longest reply, where it is not that of the backend.
    lacks: fields of OpenAI's form that they refuse.
    system_role: the role of instructions.
    """

    name: FamilyName
    models: str
    max_tokens: str | None = None
    lacks: frozenset[str] = frozenset()
    system_role: str = "system"

    def adapted(self, form: OpenAIForm, provider_id: str) -> OpenAIForm:
        """The form as these models take it.

        A lacking field that asks for what they do anyway is left out, and so is a temperature of 0, which is what a
        call without any sampling parameters has. Raises NotSupportedError, naming the native parameter, for another
        value.
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
    # Models of ChatGPT, which do not reason: https://platform.openai.com/docs/models/gpt-5-chat-latest
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
"""The first whose pattern fits a name counts."""

_BY_NAME = {family.name: family for family in FAMILIES}
_PATTERNS = [(re.compile(family.models), family) for family in FAMILIES]
FamilyOf = Callable[[str], ModelFamily | None]
"""Finds the family of a model by the backend's name for it; None where nothing is special."""


def no_family(model: str) -> ModelFamily | None:
    """For backends whose own names of models say nothing of this."""
    return None


def families(overrides: Mapping[str, FamilyName]) -> FamilyOf:
    """The table, after `overrides`: by a backend's name for a model, the family that it is of."""
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
