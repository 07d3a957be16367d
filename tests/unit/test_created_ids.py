"""Marks in ids, and where types hold ids."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypedDict
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from llamastack.api.base import JsonObject, WireModel
from llamastack.api.created_ids import IdOf, mark_in, mark_of
from llamastack.api.definition import ApiDefinition
from llamastack.api.id_fields import IdFields, id_faults, unroutable_methods
from llamastack.api.pagination import Page
from llamastack.api.webmethod import webmethod
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.stack.config import check_references, load_config
from llamastack.stack.discovery import Discovery

Names = st.text(min_size=1)
OwnIds = st.one_of(
    st.text(),
    st.builds(str.__add__, st.text(), Names.map(lambda name: mark_of("things", name))),
    st.builds(lambda end: f"file-{end}~abcdefgh", st.text(alphabet=string.hexdigits)),
)
"""Ids of providers; some look like marked ones."""


@given(OwnIds, Names)
def test_a_mark_comes_off_as_it_went_on(own: str, provider_id: str) -> None:
    mark = mark_of("things", provider_id)
    marked = own + mark
    assert mark_in(marked) == mark
    assert marked.removesuffix(mark) == own


@given(OwnIds, Names, Names)
def test_marks_nest(own: str, near: str, far: str) -> None:
    inner, outer = mark_of("things", far), mark_of("things", near)
    marked = own + inner + outer
    assert mark_in(marked) == outer
    assert mark_in(marked.removesuffix(outer)) == inner
    assert marked.removesuffix(outer).removesuffix(inner) == own


@given(Names)
def test_a_mark_stands_in_a_url_as_it_is(provider_id: str) -> None:
    mark = mark_of("things", provider_id)
    assert quote(mark, safe="") == mark
    assert len(mark) == 9


def test_a_mark_never_changes() -> None:
    # Ids with these marks are out there: another way to make them would lose them all.
    assert mark_of("agents", "main") == "~p52m3dsb"
    assert len({mark_of(api, name) for api in ("agents", "files") for name in ("a", "b", "agents/a")}) == 6


@pytest.mark.parametrize("plain", ["", "r1", "5f0c-11", "~", "~abcdefg", "~abcdefgh1", "~ABCDEFGH", "a~abcdefgh\n"])
def test_other_ids_have_no_mark(plain: str) -> None:
    assert mark_in(plain) == ""


class Thing(WireModel):
    thing_id: str
    other_id: str = "o"
    parent: Annotated[str | None, IdOf("thing_id")] = None
    children: list[Thing] = Field(default_factory=list)
    linked: Annotated[list[str], IdOf("thing_id")] = Field(default_factory=list)
    by_name: dict[str, Thing] = Field(default_factory=dict)
    extra: JsonObject | None = None


class Special(Thing):
    origin: Annotated[str, IdOf("thing_id")] = ""


class Plain(WireModel):
    text: str
    inner: Plain | None = None


class Stated(TypedDict):
    thing_id: str


@dataclass
class Record:
    thing_id: str


def api_of(protocol: type) -> ApiDefinition:
    return ApiDefinition("things", protocol)


class Things(Protocol):
    @webmethod("/things", creates="thing_id")
    async def make(self, name: str) -> Thing: ...

    @webmethod("/either", methods=("GET",))
    async def either(self, thing_id: str) -> str | list[Thing | Plain] | Special | Thing | None: ...

    @webmethod("/watch", methods=("GET",))
    async def watch(self, thing_id: str) -> AsyncIterator[Thing]: ...

    @webmethod("/list", methods=("GET",))
    async def list_things(self, limit: int | None = None, after: str | None = None) -> Page[Thing]: ...

    @webmethod("/move")
    async def move(self, thing: Thing, to: Annotated[str, IdOf("thing_id")], note: str = "") -> Plain: ...


FIELDS = IdFields(frozenset({"thing_id"}))
METHODS = api_of(Things).methods


def marked(value: Any, method: str, place: int = 0) -> Any:
    change = FIELDS.reply(METHODS[method])[place]
    assert change is not None
    return change(value, lambda own: f"{own}!")


def test_ids_are_changed_wherever_the_types_say_so() -> None:
    thing = Thing(
        thing_id="a",
        parent="b",
        children=[Thing(thing_id="c", by_name={"x": Special(thing_id="d", origin="e")})],
        linked=["f", "g"],
        extra={"thing_id": "not ours"},
    )
    before = thing.model_copy(deep=True)
    found = marked(thing, "make")
    assert thing == before  # it may be the state of the provider
    assert (found.thing_id, found.other_id, found.parent, found.linked) == ("a!", "o", "b!", ["f!", "g!"])
    assert found.children[0].thing_id == "c!"
    # The type says Thing; what else a subclass has is not known to callers.
    assert found.children[0].by_name["x"].thing_id == "d!"
    assert found.extra == {"thing_id": "not ours"}
    assert marked(Thing(thing_id="a"), "make").parent is None


def test_the_members_of_a_union_are_told_apart() -> None:
    assert marked("a", "either") == "a"
    assert marked(None, "either") is None
    mixed = marked([Plain(text="thing_id"), Thing(thing_id="a")], "either")
    assert (mixed[0].text, mixed[1].thing_id) == ("thing_id", "a!")
    special = marked(Special(thing_id="a", origin="b"), "either")
    assert (special.thing_id, special.origin) == ("a!", "b!")


def test_pieces_and_pages() -> None:
    assert FIELDS.reply(METHODS["watch"])[0] is None
    assert marked(Thing(thing_id="a"), "watch", 1).thing_id == "a!"
    page = marked(Page[Thing](data=[Thing(thing_id="a")], last_id="a"), "list_things")
    assert (page.data[0].thing_id, page.last_id) == ("a!", "a!")
    assert marked(Page[Thing](data=[]), "list_things").last_id is None


def test_arguments_hold_ids_by_their_names_or_types() -> None:
    changes = FIELDS.arguments(METHODS["move"])
    assert [*changes] == ["thing", "to"]
    assert changes["thing"](Thing(thing_id="a"), str.upper).thing_id == "A"
    assert [*FIELDS.arguments(METHODS["watch"])] == ["thing_id"]
    assert FIELDS.reply(METHODS["move"]) == (None, None)


@pytest.mark.parametrize("api", BUILTIN_APIS, ids=lambda api: str(api.name))
def test_the_ids_of_the_built_in_apis_say_which_instance_made_them(api: ApiDefinition) -> None:
    assert [fault for method in api.methods.values() for fault in id_faults(api, method)] == []


def test_which_apis_can_have_several_instances() -> None:
    unroutable = {api.name: unroutable_methods(api) for api in BUILTIN_APIS if not api.implemented_by_stack}
    assert (unroutable["agents"], unroutable["telemetry"]) == ([], [])
    assert unroutable_methods(api_of(Things)) == []


class Unroutable(Protocol):
    @webmethod("/a")
    async def says_nothing(self) -> Plain: ...

    @webmethod("/b", instances="first")
    async def goes_to_the_first(self) -> Plain: ...


def test_an_api_whose_calls_say_nothing_takes_one_provider() -> None:
    apis = {"things": api_of(Unroutable)}
    providers = [{"provider_id": name, "provider_type": "sample"} for name in "ab"]
    config = load_config({"providers": {"things": providers}}, apis, Discovery())
    [fault] = check_references(config, apis, Discovery())
    assert (fault.path, fault.message) == (
        ("providers", "things", 1),
        "API 'things' takes one provider: nothing in the calls of says_nothing could say which of several is meant",
    )


class Faulty(Protocol):
    @webmethod("/a", creates="thing_id")
    async def lacks_it(self) -> Plain: ...

    @webmethod("/b", creates="number_id")
    async def has_a_number(self) -> Numbered: ...

    @webmethod("/c")
    async def in_a_dict(self, thing_id: str) -> Stated: ...

    @webmethod("/d")
    async def in_a_record(self, thing_id: str) -> list[Record]: ...

    @webmethod("/e")
    async def in_a_tuple(self, things: tuple[Thing, ...]) -> None: ...

    @webmethod("/f")
    async def has_no_room(self, thing_id: Annotated[str, Field(max_length=36)]) -> None: ...

    @webmethod("/g")
    async def has_no_room_inside(self, ids: list[Annotated[str, IdOf("thing_id"), Field(pattern="^t")]]) -> None: ...

    @webmethod("/h")
    async def lost(self, thing_id: str | None = None) -> Sequence[Special]: ...


class Numbered(WireModel):
    number_id: int


def test_what_is_refused_when_the_api_is_loaded() -> None:
    api = api_of(Faulty)
    found = [f"{name}: {fault}" for name, method in api.methods.items() for fault in id_faults(api, method)]
    assert found == [
        "lacks_it: creates is 'thing_id', which the reply does not have; allowed: a field of it that is a str",
        "has_a_number: Numbered.number_id holds an id and has the type int; allowed: str, and lists of it",
        "in_a_dict: the reply has an id inside a Stated; allowed: in models, lists and mappings",
        "in_a_record: the reply has an id inside a Record; allowed: in models, lists and mappings",
        f"in_a_tuple: argument 'things' has an id inside a {tuple[Thing, ...]}; allowed: in models, lists and mappings",
        "has_no_room: argument 'thing_id' holds an id and has a maxLength, which leaves no room for a provider's mark",
        "has_no_room_inside: argument 'ids' holds an id and has a pattern, which leaves no room for a provider's mark",
        f"lost: the reply has an id inside a {Sequence[Special]}; allowed: in models, lists and mappings",
    ]
    assert unroutable_methods(api) == ["in_a_tuple", "lost"]
