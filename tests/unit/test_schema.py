"""The fields of types, and what their values may be, read from JSON schemas."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue, SecretStr

from llamastack.api.files import File
from llamastack.api.schema import Schema


class Leaf(BaseModel):
    key: SecretStr | None = None
    children: list[Leaf] = Field(default_factory=list, description="Those\n below")


class Circle(BaseModel):
    type: Literal["circle"] = "circle"
    radius: float


class Square(BaseModel):
    type: Literal["square"] = "square"
    side: float
    radius: int | None = None


@pytest.mark.parametrize(
    ("kind", "text", "texts"),
    [
        (str, True, True),
        (Literal["a", 1], True, True),
        (int | None, True, True),
        (SecretStr, True, True),
        (list[bool], False, True),
        (list[int] | str, False, True),
        (list[list[str]], False, False),
        (list[Any], False, False),
        (dict[str, str], False, False),
        (Leaf, False, False),
        (JsonValue, False, False),
        (bytes, False, False),
        (File, False, False),
        (list[File], False, False),
    ],
)
def test_what_can_be_written_as_text(kind: Any, text: bool, texts: bool) -> None:
    assert (Schema.of(kind).is_text(), Schema.of(kind).is_text(lists=True)) == (text, texts)


def test_a_type_that_holds_itself_is_followed_once() -> None:
    fields = list(Schema.of(Leaf).nested_fields())
    assert [(path, field.required, field.description) for path, field in fields] == [
        ("key", False, ""),
        ("children", False, "Those below"),
    ]
    assert [field.is_secret for _, field in fields] == [True, False]


def test_a_union_has_the_fields_of_its_members() -> None:
    fields = Schema.of(Annotated[Circle | Square, Field(discriminator="type")]).fields
    assert {name: field.required for name, field in fields.items()} == {"type": False, "radius": False, "side": True}
    assert [member.source["const"] for member in fields["type"].members()] == ["circle", "square"]
    assert fields["radius"].values_of("type") == {"number", "integer", "null"}


def test_fields_inside_lists_and_mappings() -> None:
    class Holder(BaseModel):
        by_name: dict[str, list[Circle | Leaf]]

    names = [path for path, _ in Schema.of(Holder).nested_fields()]
    assert names == [
        "by_name",
        "by_name.*[].type",
        "by_name.*[].radius",
        "by_name.*[].key",
        "by_name.*[].children",
    ]


def test_secrets_are_found_wherever_they_stand() -> None:
    assert Schema.of(dict[str, list[SecretStr | int]]).is_secret
    assert not Schema.of(dict[str, list[str]]).is_secret
