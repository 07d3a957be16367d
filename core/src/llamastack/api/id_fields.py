"""Where arguments and replies hold the ids that an API creates. It follows from their types, before any call."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from llamastack.api.created_ids import PROVIDER_ID, IdOf
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.api.schema import Schema

Change = Callable[[str], str]
"""Makes another id of an id."""
ChangeIds = Callable[[Any, Change], Any]
"""Returns a value with its ids changed. What it changes is a copy, as the value may be a provider's own state."""
_LEAVES_NO_ROOM = ("pattern", "maxLength", "format")
"""What the schema of an id must not have, as it may not allow for the mark."""


class IdFields:
    """Finds the ids in types, and composes the functions that change them in values.

    names: of the ids. A field or an argument holds one if it has such a name, or if its type says so by `IdOf`.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._changers: dict[type[BaseModel], dict[str, ChangeIds]] = {}

    def arguments(self, method: MethodDefinition) -> dict[str, ChangeIds]:
        """The arguments of a method that hold ids."""
        found = {name: self._changer(method.hints[name], name in self._names) for name in method.parameters}
        return {name: change for name, change in found.items() if change is not None}

    def reply(self, method: MethodDefinition) -> tuple[ChangeIds | None, ChangeIds | None]:
        """(for the plain reply, for a streamed piece); None for one that holds no ids.

        The `last_id` of a page is one: it is where a page of one instance ends.
        """
        plain, piece = method.result_types
        if method.page_type is not None:
            fields = {**self._fields(method.page_type), "last_id": _optional}
            return _in_model(fields), None
        return self._changer(plain, False), self._changer(piece, False)

    # ---- values ------------------------------------------------------------------------------------------------------

    def _changer(self, hint: object, is_id: bool) -> ChangeIds | None:
        models: list[type[BaseModel]] = []
        inside: dict[type, list[object]] = {}
        choices: list[tuple[type, ChangeIds]] = []
        for member, holds_id in self._members(hint, is_id):
            if (kind := get_origin(member)) in (list, dict):
                inside.setdefault(kind, []).append(self._item(member, holds_id))
            elif _is_model(member) and self._names_id(member, set()):
                models.append(member)
            elif member is str and holds_id:
                choices.append((str, _text))
        # A class goes before those that it inherits from.
        choices += [(model, _in_model(self._fields(model))) for model in sorted(models, key=lambda m: -len(m.__mro__))]
        for kind, hints in inside.items():
            change = self._changer(Union[tuple(hints)], False)  # noqa: UP007 - one cannot write it as X | Y
            if change is not None:
                choices.append((kind, _in_list(change) if kind is list else _in_mapping(change)))
        return _by_type(choices) if choices else None

    def _item(self, hint: object, is_id: bool) -> object:
        item = get_args(hint)[-1]
        return Annotated[item, IdOf(min(self._names))] if is_id else item

    def _fields(self, model: type[BaseModel]) -> Mapping[str, ChangeIds]:
        fields = self._changers.get(model)
        if fields is None:
            fields = self._changers[model] = {}  # before its fields are read: one of them may hold the same type
            for name, hint in _hints(model).items():
                change = self._changer(hint, name in self._names)
                if change is not None:
                    fields[name] = change
        return fields

    # ---- types -------------------------------------------------------------------------------------------------------

    def faults(self, hint: object, name: str, where: str) -> Iterator[str]:
        """What keeps ids in values of this type from being changed, of a field or an argument."""
        yield from self._faults(hint, name in self._names, where, set())

    def _faults(self, hint: object, is_id: bool, where: str, seen: set[object]) -> Iterator[str]:
        for member, holds_id in self._members(hint, is_id):
            if get_origin(member) in (list, dict):
                yield from self._faults(self._item(member, holds_id), False, where, seen)
            elif holds_id and member not in (str, type(None)):
                yield f"{where} holds an id and has the type {_shown(member)}; allowed: str, and lists of it"
            elif holds_id and member is str:
                for keyword in _LEAVES_NO_ROOM:
                    if Schema.of(hint).values_of(keyword) - {None}:
                        yield f"{where} holds an id and has a {keyword}, which leaves no room for a provider's mark"
            elif _is_model(member) and member not in seen:
                seen.add(member)
                for name, inner in _hints(member).items():
                    yield from self._faults(inner, name in self._names, f"{member.__name__}.{name}", seen)
            elif not _is_model(member) and self._names_id(member, set()):
                yield f"{where} has an id inside a {_shown(member)}; allowed: in models, lists and mappings"

    def _members(self, hint: object, is_id: bool) -> Iterator[tuple[object, bool]]:
        """The types that a value may have, and whether it is an id, or a list of ids, then."""
        if get_origin(hint) is Annotated:
            kind, *notes = get_args(hint)
            yield from self._members(kind, is_id or self._says_id(notes))
        elif get_origin(hint) in (Union, types.UnionType):
            for member in get_args(hint):
                yield from self._members(member, is_id)
        else:
            yield hint, is_id

    def _names_id(self, hint: object, seen: set[object]) -> bool:
        """Whether a type holds an id anywhere."""
        if get_origin(hint) is Annotated and self._says_id(get_args(hint)[1:]):
            return True
        fields = {} if not isinstance(hint, type) or hint in seen else _hints(hint)
        if fields:
            seen.add(hint)
        return any(name in self._names or self._names_id(inner, seen) for name, inner in fields.items()) or any(
            self._names_id(inner, seen) for inner in get_args(hint)
        )

    def _says_id(self, notes: Sequence[object]) -> bool:
        return any(isinstance(note, IdOf) and note.name in self._names for note in notes)


def unroutable_methods(api: ApiDefinition) -> list[str]:
    """The methods whose calls do not say which of several instances is meant, for an API without resources."""
    ids = IdFields(api.created_ids)
    return [
        name
        for name, method in api.methods.items()
        if not (method.web.creates or method.gives_list or PROVIDER_ID in method.parameters)
        and method.web.instances == "named"
        and all(method.parameters[n].default is not method.parameters[n].empty for n in ids.arguments(method))
    ]


def id_faults(api: ApiDefinition, method: MethodDefinition) -> Iterator[str]:
    """What keeps the ids that an API creates from saying which instance made them."""
    ids = IdFields(api.created_ids)
    if api.pair is not None and method.web.creates:
        yield f"creates is '{method.web.creates}', but the {api.pair.label} that a call names decides the provider"
        return
    if method.web.creates and not any(IdFields(frozenset({method.web.creates})).reply(method)):
        yield f"creates is '{method.web.creates}', which the reply does not have; allowed: a field of it that is a str"
    if not api.created_ids:
        return
    for name in method.parameters:
        yield from ids.faults(method.hints[name], name, f"argument '{name}'")
    for kind in method.result_types:
        yield from ids.faults(kind, "", "the reply")


def _hints(kind: type) -> Mapping[str, object]:
    """The fields of a class with types."""
    if _is_model(kind):
        return {
            name: Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            for name, field in kind.model_fields.items()
        }
    return get_type_hints(kind, include_extras=True) if "__annotations__" in vars(kind) else {}


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shown(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


# ---- changing --------------------------------------------------------------------------------------------------------


def _text(value: str, change: Change) -> str:
    return change(value)


def _optional(value: str | None, change: Change) -> str | None:
    return None if value is None else change(value)


def _by_type(choices: Sequence[tuple[type, ChangeIds]]) -> ChangeIds:
    def change_one(value: object, change: Change) -> object:
        for kind, changed in choices:
            if isinstance(value, kind):
                return changed(value, change)
        return value

    return change_one


def _in_list(inner: ChangeIds) -> ChangeIds:
    return lambda values, change: [inner(value, change) for value in values]


def _in_mapping(inner: ChangeIds) -> ChangeIds:
    return lambda values, change: {name: inner(value, change) for name, value in values.items()}


def _in_model(fields: Mapping[str, ChangeIds]) -> ChangeIds:
    def change_fields(value: BaseModel, change: Change) -> BaseModel:
        found = vars(value)
        changed = {name: inner(found[name], change) for name, inner in fields.items() if name in found}
        return value.model_copy(update=changed)

    return change_fields
