"""The sampling fields of OpenAI's requests, as `OpenAIForm` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llamastack.api.common import SamplingParams
from llamastack.api.inference import LogProbConfig
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import invalid_request
from llamastack_adapters.openai_dialect import OpenAIForm
from llamastack_openai_api.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest

_HIGHEST_TEMPERATURE = 2
_SEEDS = 2**32 - 1
"""The number of native seeds without the last, which some engines take for none."""
_SAME_NAME = ("frequency_penalty", "presence_penalty", "min_p", "logit_bias", "repetition_penalty")
_Made = TypeVar("_Made", bound=BaseModel)


def made(kind: type[_Made], values: Mapping[str, Any], params: Mapping[str, str]) -> _Made:
    """A valid native value.

    params: the client's name of a field, if it differs.

    Raises InvalidRequestError that names it.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        fault = invalid_request(error, kind)
        field, _, rest = (fault.param or "").partition(".")
        name = params.get(field, field)
        raise InvalidRequestError(
            f"{name}: {fault.errors[0]['msg']}", param=f"{name}.{rest}" if rest else name or None
        ) from None


def sampling(request: GenerationRequest, longest: int | None, longest_param: str = "max_tokens") -> dict[str, Any]:
    """The sampling parameters of a request, as fields of the form. The model's defaults count for parameters that are
    not given.

    longest: most tokens of the reply, from the field `longest_param`.
    """
    fields = _strategy(request)
    if longest:
        fields["max_tokens"] = longest
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(stops):
        fields["stop"] = stops
    if request.seed is not None:
        if not -(2**63) <= request.seed < 2**64:
            raise InvalidRequestError("must have at most 64 bits", param="seed")
        fields["seed"] = request.seed % _SEEDS
    for name in _SAME_NAME:
        value = getattr(request, name)
        if value not in (None, {}):
            fields[name] = value
    # The native type checks the bounds.
    params = made(SamplingParams, fields, {"max_tokens": longest_param})
    fields = {name: getattr(params, name) for name in fields}
    if fields.get("repetition_penalty") == 1.0:
        del fields["repetition_penalty"]
    return fields


def another_seed(form: OpenAIForm, number: int) -> OpenAIForm:
    """The same with another seed: with one seed all answers would be the same."""
    seed = form.fields.get("seed")
    return form if seed is None or not number else form.with_fields(seed=(seed + number) % _SEEDS)


def _strategy(request: GenerationRequest) -> dict[str, Any]:
    temperature, top_p = request.temperature, request.top_p
    if temperature is not None and temperature > _HIGHEST_TEMPERATURE:
        raise InvalidRequestError(f"must be at most {_HIGHEST_TEMPERATURE}", param="temperature")
    if temperature == 0:
        return {"temperature": 0.0}
    fields: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    if request.top_k is not None and request.top_k > 0:
        fields["top_k"] = request.top_k
    elif temperature is not None and top_p is None:
        top_p = 1.0  # as at OpenAI
    if top_p is not None:
        fields["top_p"] = top_p
    return fields


def chat_logprobs(request: ChatCompletionRequest) -> int | None:
    """The number of likeliest tokens to return; None without log probabilities. Raises InvalidRequestError."""
    if request.logprobs:
        return made(LogProbConfig, {"top_k": request.top_logprobs or 0}, {"top_k": "top_logprobs"}).top_k
    if request.top_logprobs:
        raise InvalidRequestError("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    return None


def completion_logprobs(request: CompletionRequest) -> int | None:
    """As `chat_logprobs`."""
    if request.logprobs is None:
        return None
    return made(LogProbConfig, {"top_k": request.logprobs}, {"top_k": "logprobs"}).top_k
