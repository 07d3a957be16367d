"""An API as something to call: made from its definition and a function that carries a call out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.provider.validation import invalid_request

Dispatch = Callable[[dict[str, Any]], Awaitable[Any]]


class ApiMethod:
    """One callable method of an API, in process or over HTTP.

    Calling it validates the arguments; `dispatch` takes a dict of arguments that are valid already.
    check: ends before the provider is called. Only a stack has it, for methods of providers.
    """

    def __init__(self, definition: MethodDefinition, dispatch: Dispatch, check: Dispatch | None = None) -> None:
        self.definition = definition
        self.dispatch = dispatch
        self._check = check
        self._request = definition.request_model
        self._names = tuple(definition.parameters)

    async def __call__(self, /, *args: object, **kwargs: object) -> Any:
        """Raises InvalidRequestError for arguments that do not fit, and whatever the provider raises."""
        if args:
            if len(args) > len(self._names):
                raise TypeError(f"{self.definition.name}() takes at most {len(self._names)} arguments")
            for name, value in zip(self._names, args, strict=False):
                if name in kwargs:
                    raise TypeError(f"{self.definition.name}() got several values for argument {name!r}")
                kwargs[name] = value
        return await self.dispatch(self._validated(kwargs))

    async def check(self, /, **arguments: object) -> None:
        """Raises what a call would raise before the provider is called.

        That is an error for arguments that do not fit, for an object that nobody serves, for what the current principal
        may not do, and for what the provider cannot do.
        """
        if self._check is None:
            raise TypeError(f"{self!r} cannot be checked without a call")
        await self._check(self._validated(arguments))

    def _validated(self, given: dict[str, object]) -> dict[str, object]:
        try:
            return self._request.model_validate(given).given_arguments()
        except ValidationError as error:
            raise invalid_request(error, self._request, given) from None

    def __repr__(self) -> str:
        return f"<{self.definition.api}.{self.definition.name}>"


class ApiHandle:
    """An API: one `ApiMethod` per method of its Protocol."""

    def __init__(
        self,
        definition: ApiDefinition,
        dispatch_of: Callable[[MethodDefinition], Dispatch],
        check_of: Callable[[MethodDefinition], Dispatch] | None = None,
    ) -> None:
        self.definition = definition
        self.methods = {
            name: ApiMethod(method, dispatch_of(method), check_of and check_of(method))
            for name, method in definition.methods.items()
        }

    def __getattr__(self, name: str) -> ApiMethod:
        methods: dict[str, ApiMethod] = self.__dict__.get("methods", {})
        try:
            return methods[name]
        except KeyError:
            raise AttributeError(f"API '{self.definition.name}' has no method {name!r}") from None

    def __repr__(self) -> str:
        return f"<API {self.definition.name}>"
