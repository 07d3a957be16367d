"""One call of a provider that changes nothing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

from llamastack.api.base import RoutedObject
from llamastack.api.common import SamplingParams, UserMessage
from llamastack.api.definition import MethodDefinition, ReplyKind
from llamastack.api.models import Model
from llamastack.provider.errors import InvalidRequestError, NotFoundError, NotSupportedError
from llamastack.stack import Stack
from llamastack.stack.supervisor import SupervisedProvider

_TEXT = "Hello"
_MOST_MODELS = 3
"""A list of models of a service may begin with some that make pictures or speech, which nothing tells apart."""

Called = tuple[bool, str]
"""(whether the provider was called, what it was or why not)."""


async def call_once(stack: Stack, instance: SupervisedProvider, items: Sequence[RoutedObject]) -> Called:
    """Call a provider that is healthy. items: what it serves. Raises what the call raises."""
    call = _CALLS.get(instance.api, _read_something)
    try:
        return await call(stack, instance, items)
    except NotSupportedError as error:
        return False, f"not called: {error.message}"


async def _generate(stack: Stack, instance: SupervisedProvider, items: Sequence[RoutedObject]) -> Called:
    models = [item for item in items if isinstance(item, Model)]
    chatting = [model for model in models if model.can_chat][:_MOST_MODELS]
    for model in chatting:
        name = f"{instance.provider_id}/{model.identifier}"
        try:
            await stack.inference.chat_completion(
                model=name, messages=[UserMessage(content=_TEXT)], sampling_params=SamplingParams(max_tokens=1)
            )
        except (InvalidRequestError, NotFoundError):
            if model is chatting[-1]:
                raise
        else:
            return True, f"one token of {model.identifier}"
    if models:
        await stack.inference.embeddings(model=f"{instance.provider_id}/{models[0].identifier}", contents=[_TEXT])
        return True, f"an embedding of {models[0].identifier}"
    return False, "not called: it has no model"


async def _run_shield(stack: Stack, instance: SupervisedProvider, items: Sequence[RoutedObject]) -> Called:
    if not items:
        return False, "not called: it has no shield"
    shield = items[0].identifier
    name = f"{instance.provider_id}/{shield}"
    await stack.safety.run_shield(shield_type=name, messages=[UserMessage(content=_TEXT)])
    return True, f"shield {shield}"


async def _query(stack: Stack, instance: SupervisedProvider, items: Sequence[RoutedObject]) -> Called:
    if not items:
        return False, "not called: it has no memory bank; those of the run config are made at a start"
    bank = items[0].identifier
    await stack.memory.query_documents(bank_id=f"{instance.provider_id}/{bank}", query=_TEXT)
    return True, f"a query of {bank}"


async def _read_something(stack: Stack, instance: SupervisedProvider, _: Sequence[RoutedObject]) -> Called:
    """A method that only reads and needs no arguments, such as a list, where it must reach this instance."""
    if len(stack.instances[instance.api]) > 1:
        return False, "not called: no harmless call says which of several providers is meant"
    for method in instance.definition.methods.values():
        if _only_reads(method):
            await stack.api(instance.api).methods[method.name]()
            return True, method.name
    return False, "not called: every call of this API changes something or needs an id"


async def _export(stack: Stack, instance: SupervisedProvider, items: Sequence[RoutedObject]) -> Called:
    """No spans to a sink, which any backend of it answers as it would answer spans."""
    export = getattr(instance.provider, "export_spans", None)
    if export is None:
        return await _read_something(stack, instance, items)
    await export([])
    return True, "a batch of no spans"


def _only_reads(method: MethodDefinition) -> bool:
    needs = [name for name, each in method.parameters.items() if each.default is inspect.Parameter.empty]
    return method.web.methods[0] == "GET" and not needs and method.reply_kind is ReplyKind.JSON and method.piece is None


_CALLS: dict[str, Callable[[Stack, SupervisedProvider, Sequence[RoutedObject]], Awaitable[Called]]] = {
    "inference": _generate,
    "safety": _run_shield,
    "memory": _query,
    "telemetry": _export,
}
