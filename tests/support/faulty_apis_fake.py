"""Plugins whose APIs cannot be used, each in one way, and good ones: what third parties get wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider import Deps, InlineProviderSpec, hookimpl
from llamastack.provider.builtin_apis import routed_apis


class Adds:
    """A plugin that adds APIs, and relies on the last of them. give: returns what its hook returns."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self._give = give

    @hookimpl
    def llamastack_apis(self) -> Any:
        return self._give()

    @hookimpl
    def llamastack_stack_plugins(self, config: Any) -> Any:
        if self._give()[0].name != "good":
            raise RuntimeError("a hook of a plugin that is left out was called")
        return []


def api(name: Any, route: Any = "/beeps", function: Any = None, **options: Any) -> ApiDefinition:
    """An API with one method."""

    async def beep(self: Any, text: str = "") -> None: ...

    marked = webmethod(route, **options)(function or beep)
    return ApiDefinition(name, type("Beeps", (Protocol,), {"beep": marked}))  # type: ignore[arg-type]


def adding(*arguments: Any, **options: Any) -> Adds:
    return Adds(lambda: [api("whole", "/whole"), api(*arguments, **options)])


async def required(self: Any, text: str) -> None: ...
async def untyped(self: Any, text) -> None: ...  # type: ignore[no-untyped-def]
def not_async(self: Any, text: str = "") -> None: ...
async def generator(self: Any, text: str = "") -> AsyncIterator[str]:
    yield text


async def unknown_type(self: Any, text: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def strange_type(self: Any, text: Adds) -> None: ...


class Beep(RoutedObject):
    """What the pair of APIs is routed by."""


def pair(
    routed: Any = "beeping",
    resource: Any = "beeps",
    kind: Any = Beep,
    lists: Any = ResourceAction.LIST,
    routed_by: str | None = "beep",
) -> tuple[ApiDefinition, ApiDefinition]:
    async def use(self: Any, beep: str) -> None: ...
    async def list_beeps(self: Any) -> list[Beep]: ...  # type: ignore[empty-body]

    return routed_apis(
        type("Use", (Protocol,), {"use": webmethod("/beeping/use", routed_by=routed_by)(use)}),  # type: ignore[arg-type]
        type(
            "Beeps",
            (Protocol,),  # type: ignore[arg-type]
            {"list_beeps": webmethod("/beeps/list", methods=("GET",), resource_action=lists)(list_beeps)},
        ),
        ResourceKind(routed, resource, "beep", kind, object),
    )


def raises(error: BaseException) -> Any:
    raise error


def half_a_list() -> Iterator[Any]:
    yield api("beeper")
    raise RuntimeError("no more")


class Faulty(NamedTuple):
    """plugin: what is wrong. says: what the cause says. surface: the package that finds it, if it is not the core."""

    plugin: Any
    says: str
    surface: str | None = None


_SERVER, _OPENAI, _METRICS = (
    "llamastack-server:server",
    "llamastack-openai-api:openai-api",
    "llamastack-metrics:metrics",
)
_OWN = "is a route of llamastack-"
FAULTY = {
    "text": Faulty(Adds(lambda: "nonsense"), "TypeError: it gives a str; allowed: ApiDefinition"),
    "bytes": Faulty(Adds(lambda: b"nonsense"), "it gives a bytes; allowed: ApiDefinition"),
    "nothing": Faulty(Adds(lambda: None), "it gives a NoneType; allowed: ApiDefinition"),
    "number": Faulty(Adds(lambda: 5), "it gives a int; allowed: ApiDefinition"),
    "mapping": Faulty(Adds(lambda: {"beeper": api("beeper")}), "it gives a dict; allowed: ApiDefinition"),
    "a_wrong_item": Faulty(Adds(lambda: [api("beeper"), Beep, 5]), "it gives a ModelMetaclass and a int; allowed"),
    "raises": Faulty(Adds(lambda: raises(ZeroDivisionError("oops"))), "ZeroDivisionError: oops"),
    "exits": Faulty(Adds(lambda: raises(SystemExit(3))), "SystemExit: 3"),
    "ends_halfway": Faulty(Adds(half_a_list), "RuntimeError: no more"),
    "name_of_core": Faulty(adding("inference"), "API 'inference' is there already: it is built in"),
    "name_twice": Faulty(Adds(lambda: [api("a", "/a"), api("a", "/b")]), "API 'a' is there already: it is added twice"),
    "name_is_no_text": Faulty(adding(5), "5 is no name of an API; allowed: a Python identifier"),
    "name_with_blank": Faulty(adding("a b"), "'a b' is no name of an API"),
    "name_private": Faulty(adding("_a"), "'_a' is no name of an API"),
    "no_protocol": Faulty(Adds(lambda: [ApiDefinition("beeper", None)]), "beeper: its methods cannot be read: "),  # type: ignore[arg-type]
    "untyped": Faulty(adding("beeper", function=untyped), "beeper.beep: argument 'text' has no type"),
    "not_async": Faulty(adding("beeper", function=not_async), "beeper.beep: it is not async; allowed: `async def`"),
    "generator": Faulty(adding("beeper", function=generator), "beeper.beep: it is not async; allowed: `async def`"),
    "unknown_type": Faulty(adding("beeper", function=unknown_type), "beeper: its methods cannot be read: NameError: "),
    "strange_type": Faulty(adding("beeper", function=strange_type), "Unable to generate pydantic-core schema"),
    "routed_by_nobody": Faulty(Adds(lambda: pair(routed_by="bleep")), "beeping.use: routed_by must name the argument"),
    "routed_by_nothing": Faulty(Adds(lambda: pair(routed_by=None)), "beeping.use: routed_by must name the argument"),
    "lists_nothing": Faulty(Adds(lambda: pair(lists=None)), "beeps: no method lists the beeps"),
    "no_objects": Faulty(Adds(lambda: pair(kind=BaseModel)), "beeping: object_type is "),
    "half_a_pair": Faulty(Adds(lambda: pair()[:1]), "beeping: it needs its pair, 'beeping' and 'beeps'"),
    "other_half": Faulty(Adds(lambda: pair()[1:]), "beeps: it needs its pair, 'beeping' and 'beeps'"),
    "mixed_pair": Faulty(Adds(lambda: [*pair()[:1], api("beeps")]), "beeping: it needs its pair"),
    "pair_is_nonsense": Faulty(
        Adds(lambda: [ApiDefinition("beeper", Protocol, "pair")]),  # type: ignore[arg-type]
        "AttributeError: ",
    ),
    "nobody_implements": Faulty(
        Adds(lambda: [ApiDefinition("beeper", Protocol, implemented_by_stack=True)]),  # type: ignore[arg-type]
        "beeper: nobody implements it",
    ),
    "key_providers": Faulty(
        Adds(lambda: pair(resource="providers")), "providers: the run config has a key of this name already"
    ),
    "key_server": Faulty(Adds(lambda: pair(resource="server")), "server: the run config has a key of this name"),
    "key_of_pydantic": Faulty(Adds(lambda: pair(resource="model_copy")), "model_copy: the run config has a key of"),
    "route_relative": Faulty(adding("beeper", "beeps"), "beeper.beep: route 'beeps' is not of the form", _SERVER),
    "route_twice": Faulty(
        Adds(lambda: [api("a"), api("b")]), "POST /beeps is claimed by a.beep and by b.beep", _SERVER
    ),
    "unknown_verb": Faulty(adding("beeper", methods=("FETCH",)), "beeper.beep: methods is FETCH; allowed: ", _SERVER),
    "no_verb": Faulty(adding("beeper", methods=()), "beeper.beep: methods is none; allowed: GET", _SERVER),
    **{
        f"takes_{route.strip('/').replace('/', '_').replace('.', '_') or 'root'}": Faulty(
            adding("beeper", route, methods=("GET",)), says, surface
        )
        for route, says, surface in (
            ("/", "beeper.beep: route '/' is not of the form", _SERVER),
            ("/docs", f"beeper.beep: GET /docs {_OWN}", _SERVER),
            ("/openapi.json", f"beeper.beep: GET /openapi.json {_OWN}", _SERVER),
            ("/health", "GET /health is claimed by inspect.health and by beeper.beep", _SERVER),
            ("/ready", "GET /ready is claimed by inspect.ready and by beeper.beep", _SERVER),
            ("/models/list", "GET /models/list is claimed by models.list_models and by beeper.beep", _SERVER),
            ("/v1/models", f"beeper.beep: GET /v1/models {_OWN}", _OPENAI),
            ("/v1/health", f"beeper.beep: GET /v1/health {_OWN}", _OPENAI),
            ("/metrics", "beeper.beep: GET /metrics is a route of llamastack-metrics", _METRICS),
        )
    },
    "takes_one_model": Faulty(
        adding("beeper", "/v1/models/{text}", required, methods=("GET",)),
        f"beeper.beep: GET /v1/models/{{text}} {_OWN}",
        _OPENAI,
    ),
}


PLUGINS = SimpleNamespace(
    **{name: faulty.plugin for name, faulty in FAULTY.items()},
    good=Adds(lambda: [api("good", "/good")]),
    same=Adds(lambda: [api("good", "/other")]),
    near=Adds(lambda: [api("near", "/good")]),
    any_path=Adds(lambda: [api("good", "/{text}", required, methods=("GET",))]),
    any_in_v1=Adds(lambda: [api("good", "/v1/{text}", required, methods=("GET",))]),
)


class NoConfig(BaseModel):
    """It has no settings."""


class GoodProvider:
    async def beep(self, text: str = "") -> None: ...


async def make(config: NoConfig, deps: Deps) -> GoodProvider:
    return GoodProvider()


SPEC = InlineProviderSpec(
    api="good",
    provider_type="beeper",
    description="Beeps",
    config_class="faulty_apis_fake:NoConfig",
    factory="faulty_apis_fake:make",
)
