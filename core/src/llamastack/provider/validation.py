"""Words for what pydantic found wrong, without repeating the input, which may hold secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypedDict, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation_paths import Shape, Step, path_of, steps_of

_MISSING = "missing"
_UNKNOWN = "extra_forbidden"
_TAGS = ("union_tag_invalid", "union_tag_not_found")
_NO_OBJECT = (
    "dict_type",
    "mapping_type",
    "model_type",
    "model_attributes_type",
    "dataclass_type",
    "dataclass_exact_type",
)
_OF_A_VALIDATOR = "Value error, "
_WRONG_KIND = ("literal_error", "enum", "none_required", *_NO_OBJECT)
_WORDS = {
    _UNKNOWN: "unknown field",
    _MISSING: "required field is missing",
    "is_instance_of": "Input is of the wrong type",
    "is_subclass_of": "Input is of the wrong type",
    **dict.fromkeys(_NO_OBJECT, "Input should be an object"),
}

MOST_FAULTS = 20
"""The most errors to report of one request."""
_MOST_READ = 500
_WIDE, _NARROW = 64, 8
_LONGEST = 300
_T = TypeVar("_T")


class FaultInfo(TypedDict):
    """One thing that is wrong. loc: keys and places of the caller's value. msg: what. type: pydantic's word for it."""

    loc: list[str | int]
    msg: str
    type: str


class _Fault(NamedTuple):
    steps: list[Step]
    message: str
    type: str


def explain_validation_error(error: ValidationError, shape: Shape, value: object = None) -> list[FaultInfo]:
    """One `{"loc", "msg", "type"}` per fault, for the first of them; `loc` holds keys and places of the caller's value.

    shape: what the value was validated as. Where it could have been one of several types, the errors are those of the
    most likely type.
    value: the value. With it the first of very many errors are reported, else only their number.
    """
    if error.error_count() > _MOST_READ:  # to read them takes longer than to find them
        return _first_faults(error, shape, value)
    faults = [
        _worded(steps_of(fault["loc"], shape), fault) for fault in error.errors(include_url=False, include_input=False)
    ]
    return [
        {
            "loc": [_short(step.part) for step in fault.steps if not step.chosen],
            "msg": _short(fault.message),
            "type": fault.type,
        }
        for fault in islice(_likeliest(faults, 0), MOST_FAULTS)
    ]


def _short(part: _T) -> _T | str:
    return f"{part[:_LONGEST]}..." if isinstance(part, str) and len(part) > _LONGEST else part


def _first_faults(error: ValidationError, shape: Shape, value: object) -> list[FaultInfo]:
    """The faults of a part of `value` that has few of them, or else their number."""
    try:
        # A list is not read beyond its first fault, so that they all stand in objects with very many fields.
        fewer = _narrowed(value)
        shape.validate_python(fewer) if isinstance(shape, TypeAdapter) else shape.model_validate(fewer)
    except ValidationError as of_fewer:
        if of_fewer.error_count() <= _MOST_READ:
            found = [fault for fault in explain_validation_error(of_fewer, shape) if fault["type"] != _MISSING]
            if found:
                return found
    return [{"loc": [], "msg": f"{error.error_count()} faults, too many to list", "type": "too_many_faults"}]


def _narrowed(value: object) -> object:
    if isinstance(value, Mapping):
        items = value.items() if len(value) <= _WIDE else islice(value.items(), _NARROW)
        return {name: _narrowed(item) for name, item in items}
    return [_narrowed(item) for item in value] if isinstance(value, list) else value


def _worded(steps: list[Step], fault: ErrorDetails) -> _Fault:
    kind = fault["type"]
    if kind in _TAGS:
        # A discriminator that is a function has no name that a caller knows.
        name = str(fault["ctx"]["discriminator"]).strip("'")
        steps = steps if name.endswith("()") else [*steps, Step(name)]
        if kind == "union_tag_not_found":
            return _Fault(steps, _WORDS[_MISSING], _MISSING)
        return _Fault(steps, f"Input should be one of {fault['ctx']['expected_tags']}", "literal_error")
    return _Fault(steps, _WORDS.get(kind) or fault["msg"].removeprefix(_OF_A_VALIDATOR), kind)


def _likeliest(faults: Sequence[_Fault], depth: int) -> Iterator[_Fault]:
    """The faults without those of union members that the value was not meant to be.

    faults: of one place, which is `depth` steps deep.
    """
    inside: dict[Step, list[_Fault]] = {}
    for fault in faults:
        if len(fault.steps) == depth:
            yield fault
        else:
            inside.setdefault(fault.steps[depth], []).append(fault)
    if len(inside) > 1 and all(step.chosen for step in inside):
        yield from _of_the_likeliest(list(inside.values()), depth + 1)
        return
    for group in inside.values():
        yield from _likeliest(group, depth + 1)


def _of_the_likeliest(members: Sequence[list[_Fault]], depth: int) -> Iterator[_Fault]:
    meant = [member for member in members if not any(_is_another_kind(fault, depth) for fault in member)]
    known = [member for member in meant if not _knows_nothing_of_it(member, depth)]
    if known:
        fewest = min(len(_field_faults(member, depth)) for member in known)
        for member in known:
            if len(_field_faults(member, depth)) == fewest:
                yield from _likeliest(member, depth)
        return
    for member in members:
        if member in meant:
            missing = next(fault for fault in member if fault.type == _MISSING)
            steps, name = missing.steps[:depth], missing.steps[depth].part
            yield _Fault(steps, f"Input should be an object with '{name}'", "model_type")
        else:
            yield from _likeliest(member, depth)


def _is_another_kind(fault: _Fault, depth: int) -> bool:
    """Whether the value is no text, list, object ..., where such a thing should stand."""
    return len(fault.steps) == depth and (fault.type.endswith("_type") or fault.type in _WRONG_KIND)


def _field_faults(member: Sequence[_Fault], depth: int) -> list[_Fault]:
    return [f for f in member if len(f.steps) == depth + 1 and f.type in (_MISSING, _UNKNOWN)]


def _knows_nothing_of_it(member: Sequence[_Fault], depth: int) -> bool:
    return {fault.type for fault in _field_faults(member, depth)} == {_MISSING, _UNKNOWN}


def invalid_request(
    error: ValidationError, shape: Shape, value: object = None, *, provider_id: str | None = None
) -> InvalidRequestError:
    """The error for a request that does not fit `shape`, naming the first fault's path and listing the first few.

    value: the request, see `explain_validation_error`.
    """
    faults = explain_validation_error(error, shape, value)
    paths = [path_of(fault["loc"]) for fault in faults]
    by_path: dict[str, list[str]] = {}
    for path, fault in zip(paths, faults, strict=True):
        if fault["msg"] not in by_path.setdefault(path, []):
            by_path[path].append(fault["msg"])
    named = [f"{path}: {' or '.join(words)}" if path else " or ".join(words) for path, words in by_path.items()]
    total = error.error_count() if error.error_count() > _MOST_READ else len(named)
    message = "; ".join(named[:3]) + (f"; and {total - 3} more" if total > 3 and len(named) > 1 else "")
    return InvalidRequestError(message, param=paths[0] or None, errors=faults, provider_id=provider_id)
