"""Routes of `/v1` that OpenAI's API does not have: the parts of a stack, and its shields.

Clients of newer llama-stack releases call them first. Formats: as `llama-stack-client` 0.2.12 reads them
(https://pypi.org/project/llama-stack-client/).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs

import importlib_metadata
from pydantic import TypeAdapter, ValidationError

from llamastack.api.common import (
    CompletionMessage,
    Message,
    StopReason,
    SystemMessage,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inspect import HealthStatus, ProviderHealth, ProviderStatus
from llamastack.api.shields import Shield
from llamastack.provider.errors import InvalidRequestError, NotFoundError, ObjectNotFoundError
from llamastack.provider.routes import Scope
from llamastack.provider.validation import invalid_request
from llamastack.stack import Stack
from llamastack_openai_api.errors import OPENAI_ERRORS, PREFIX
from llamastack_openai_api.requests import Content, Name, OpenAIModel, Part, TextPart
from llamastack_openai_api.schemas import Schema
from llamastack_server import Endpoint, json_object, json_of

Fields = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """path: parameters of the path. query: those of the query, the first of each name. body: the body of a POST."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class StackRoute:
    """One route.

    path: below `/v1/`. api, method: the native method that serves it.
    answer: makes the JSON. result: its schema. request: the model of a POST's body; None for GET.
    """

    path: str
    api: str
    method: str
    answer: Callable[[Stack, Asked], Awaitable[Fields]]
    summary: str
    result: Schema
    request: TypeAdapter[Any] | None = None

    piece = None
    reference = "https://pypi.org/project/llama-stack-client/"

    @property
    def http_method(self) -> str:
        return "GET" if self.request is None else "POST"

    @property
    def route(self) -> str:
        """The path in the server's form. Names of shields may have slashes."""
        return PREFIX + self.path.replace("}", ":path}")


class StackEndpoint(Endpoint):
    """One route."""

    def __init__(self, route: StackRoute, stack: Stack) -> None:
        super().__init__(OPENAI_ERRORS)
        self._route = route
        self._stack = stack

    async def respond(self, scope: Scope, body: bytes) -> bytes:
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        given = {} if self._route.request is None else json_object(body or b"{}")
        return json_of(await self._route.answer(self._stack, Asked(scope.get("path_params", {}), query, given)))


# ---- the stack -------------------------------------------------------------------------------------------------------


async def _list_providers(stack: Stack, asked: Asked) -> Fields:
    return {"data": [_provider(provider) for provider in (await stack.api("inspect").health()).providers]}


async def _get_provider(stack: Stack, asked: Asked) -> Fields:
    """Ids are unique only within an API: `?api=` chooses, else the first in the order of the run config counts."""
    name, api = asked.path["provider_id"], asked.query.get("api")
    providers = (await stack.api("inspect").health()).providers
    for provider in providers:
        if provider.provider_id == name and api in (None, provider.api):
            return _provider(provider)
    there = ", ".join(f"{provider.provider_id} ({provider.api})" for provider in providers)
    raise NotFoundError(f"there is no provider '{name}'{f' of API {api!r}' if api else ''}; there are {there}")


def _provider(provider: ProviderHealth) -> Fields:
    """`config` is empty, because a run config may hold secrets."""
    health: Fields = {"status": "OK" if provider.status is ProviderStatus.healthy else "Error"}
    if provider.status is not ProviderStatus.healthy:
        health["message"] = provider.shown_reason or str(provider.status)
    elif provider.note:
        health["message"] = provider.note
    return {
        "api": provider.api,
        "provider_id": provider.provider_id,
        "provider_type": provider.provider_type,
        "config": {},
        "health": health,
    }


async def _health(stack: Stack, asked: Asked) -> Fields:
    healthy = (await stack.api("inspect").health()).status is HealthStatus.ok
    return {"status": "OK" if healthy else "Error"}


async def _version(stack: Stack, asked: Asked) -> Fields:
    return {"version": importlib_metadata.version("llamastack")}


async def _list_routes(stack: Stack, asked: Asked) -> Fields:
    routes = await stack.api("inspect").list_routes()
    return {"data": [route.to_wire() for several in routes.values() for route in several]}


# ---- shields ---------------------------------------------------------------------------------------------------------


class ShieldMessage(OpenAIModel):
    """A message of either release: the role of a tool is `tool` or `ipython`."""

    role: Literal["user", "system", "developer", "assistant", "tool", "ipython"]
    content: Content | Part | None = None


class RunShieldRequest(OpenAIModel):
    shield_id: Name
    messages: list[ShieldMessage]
    params: dict[str, Any] | None = None


RUN_SHIELD = TypeAdapter(RunShieldRequest)


async def _list_shields(stack: Stack, asked: Asked) -> Fields:
    served = await stack.api("shields").methods["list_shields"]()
    return {"data": [_shield(shield) for shield in served if shield.unavailable_reason is None]}


async def _get_shield(stack: Stack, asked: Asked) -> Fields:
    name = asked.path["identifier"]
    methods = stack.api("shields").methods
    shield = await methods["get_shield"](shield_type=name)
    if shield is None:
        served = [one.identifier for one in await methods["list_shields"]()]
        raise ObjectNotFoundError("shield", name, available=served, param="identifier")
    return _shield(shield)


def _shield(shield: Shield) -> Fields:
    """`shield_type` is the kind of check; newer releases have no field for it."""
    return {
        "identifier": shield.identifier,
        "type": "shield",
        "provider_id": shield.provider_id,
        "provider_resource_id": shield.provider_resource_id or shield.identifier,
        "shield_type": shield.type,
        "params": shield.params,
    }


async def _run_shield(stack: Stack, asked: Asked) -> Fields:
    try:
        request = RUN_SHIELD.validate_python(asked.body)
    except ValidationError as error:
        raise invalid_request(error, RUN_SHIELD, asked.body) from None
    verdict = await stack.api("safety").methods["run_shield"](
        shield_type=request.shield_id, messages=list(_messages(request.messages)), params=request.params
    )
    return {"violation": None if verdict.violation is None else verdict.violation.to_wire()}


def _messages(messages: Sequence[ShieldMessage]) -> Iterator[Message]:
    for place, message in enumerate(messages):
        text = _text(message, f"messages[{place}].content")
        if message.role == "user":
            yield UserMessage(content=text)
        elif message.role == "assistant":
            yield CompletionMessage(content=text, stop_reason=StopReason.end_of_turn)
        elif message.role in ("tool", "ipython"):
            yield ToolResponseMessage(call_id="", tool_name="tool", content=text)
        else:
            yield SystemMessage(content=text)


def _text(message: ShieldMessage, where: str) -> str:
    """Raises InvalidRequestError for images and other parts."""
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, part in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(part, TextPart):
            raise InvalidRequestError("shields take only text here", param=f"{where}[{place}]")
        texts.append(part.text)
    return "\n".join(texts)


# ---- the table -------------------------------------------------------------------------------------------------------

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}


def _all_of(**properties: Schema) -> Schema:
    return {"type": "object", "required": [*properties], "properties": properties}


def _data(items: Schema) -> Schema:
    return _all_of(data={"type": "array", "items": items})


_STATUS = {"type": "string", "enum": ["OK", "Error"]}
_PROVIDER = _all_of(
    api=_TEXT,
    provider_id=_TEXT,
    provider_type=_TEXT,
    config=_OBJECT,
    health={"type": "object", "required": ["status"], "properties": {"status": _STATUS, "message": _TEXT}},
)
_ROUTE = _all_of(route=_TEXT, method=_TEXT, provider_types={"type": "array", "items": _TEXT})
_SHIELD = _all_of(
    identifier=_TEXT,
    type={"const": "shield"},
    provider_id=_TEXT,
    provider_resource_id=_TEXT,
    shield_type=_TEXT,
    params=_OBJECT,
)
_VIOLATION = {"anyOf": [{**_all_of(violation_level=_TEXT), "additionalProperties": True}, {"type": "null"}]}

STACK_ROUTES = (
    StackRoute(
        "providers", "inspect", "list_providers", _list_providers, "Providers and how they are", _data(_PROVIDER)
    ),
    StackRoute("providers/{provider_id}", "inspect", "health", _get_provider, "One provider", _PROVIDER),
    StackRoute("health", "inspect", "health", _health, "Whether every provider is healthy", _all_of(status=_STATUS)),
    StackRoute("version", "inspect", "health", _version, "The version of llamastack", _all_of(version=_TEXT)),
    StackRoute("inspect/routes", "inspect", "list_routes", _list_routes, "The native routes", _data(_ROUTE)),
    StackRoute("shields", "shields", "list_shields", _list_shields, "The shields that can be run now", _data(_SHIELD)),
    StackRoute("shields/{identifier}", "shields", "get_shield", _get_shield, "One shield", _SHIELD),
    StackRoute(
        "safety/run-shield",
        "safety",
        "run_shield",
        _run_shield,
        "Run a shield over messages",
        _all_of(violation=_VIOLATION),
        RUN_SHIELD,
    ),
)
