"""How OpenAI's requests say that tokens are chosen -> native `SamplingParams` and `LogProbConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llamastack.api.common import SamplingParams, SamplingStrategy
from llamastack.api.inference import LogProbConfig
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import invalid_request
from llamastack_openai_api.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest

_HIGHEST_TEMPERATURE = 2
_SEEDS = 2**32 - 1
"""How many native seeds there are, without the last, which some engines take for none."""
_SAME_NAME = ("frequency_penalty", "presence_penalty", "min_p", "logit_bias", "repetition_penalty")
_Made = TypeVar("_Made", bound=BaseModel)


def made(kind: type[_Made], values: Mapping[str, Any], params: Mapping[str, str]) -> _Made:
    """A native value.

    params: by field, the client's own name for it, where that is another one. Raises InvalidRequestError that names it.
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


def sampling(request: GenerationRequest, longest: int | None, longest_param: str = "max_tokens") -> SamplingParams:
    """What a client says of sampling. Where it says nothing, the model's own defaults count.

    longest: tokens of the reply, which the field `longest_param` gives.
    """
    given: dict[str, Any] = {"max_tokens": longest or 0, **_strategy(request)}
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(stops):
        given["stop"] = stops
    if request.seed is not None:
        if not -(2**63) <= request.seed < 2**64:
            raise InvalidRequestError("must have at most 64 bits", param="seed")
        given["seed"] = request.seed % _SEEDS
    for name in _SAME_NAME:
        value = getattr(request, name)
        if value not in (None, {}):
            given[name] = value
    return made(SamplingParams, given, {"max_tokens": longest_param})


def another_seed(params: SamplingParams, number: int) -> SamplingParams:
    """The same for a further answer: one seed would make them all the same."""
    if params.seed is None or not number:
        return params
    return params.model_copy(update={"seed": (params.seed + number) % _SEEDS})


def _strategy(request: GenerationRequest) -> dict[str, Any]:
    temperature, top_p = request.temperature, request.top_p
    if temperature is not None and temperature > _HIGHEST_TEMPERATURE:
        raise InvalidRequestError(f"must be at most {_HIGHEST_TEMPERATURE}", param="temperature")
    if temperature == 0:
        return {"strategy": SamplingStrategy.greedy}
    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    if request.top_k is not None and request.top_k > 0:
        if top_p is not None and top_p < 1:
            raise InvalidRequestError("cannot be given together with 'top_p' for this model", param="top_k")
        return {"strategy": SamplingStrategy.top_k, "top_k": request.top_k, **given}
    if temperature is not None and top_p is None:
        top_p = 1.0  # as OpenAI has it
    return {"strategy": SamplingStrategy.top_p, **given, **({} if top_p is None else {"top_p": top_p})}


def chat_logprobs(request: ChatCompletionRequest) -> LogProbConfig | None:
    """Raises InvalidRequestError."""
    if request.logprobs:
        return made(LogProbConfig, {"top_k": request.top_logprobs or 0}, {"top_k": "top_logprobs"})
    if request.top_logprobs:
        raise InvalidRequestError("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    return None


def completion_logprobs(request: CompletionRequest) -> LogProbConfig | None:
    """Raises InvalidRequestError."""
    if request.logprobs is None:
        return None
    return made(LogProbConfig, {"top_k": request.logprobs}, {"top_k": "logprobs"})
