"""What the suite of an API that a package adds begins with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed_reply
from llamastack_conformance.suites.provider import ProviderConformance, RoutedProviderConformance
from llamastack_conformance.suites.suite import Suite


class MethodChecks(Suite):
    """Of every method, whatever it takes and gives.

    guesses: whether `examples` are guesses. Then a provider may refuse them (400), and the check does not apply.
    """

    guesses: ClassVar[bool] = False

    def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """(method, arguments) of calls that succeed one after the other; of every method that the provider has.

        An async generator: what a call needs of the one before, such as an id, it gets by calling `running.calls`.
        """
        raise NotImplementedError

    @check(
        "methods.every",
        tier=Tier.live,
        mend="return what the Protocol says, of the same type; of a File its size, or None",
    )
    async def test_methods_every(self, subject: Subject) -> None:
        """every method answers an example call with what its Protocol says: an object, a stream, bytes or a file"""
        tried: set[str] = set()
        async with subject.shared() as running:
            await self.prepare(running)
            async for name, arguments in self.examples(running):
                tried.add(name)
                try:
                    result = await getattr(running.calls, name)(**arguments)
                except LlamaStackError as error:
                    if self.guesses and isinstance(error, InvalidRequestError):
                        tried.discard(name)
                        continue
                    raise CheckFailure(f"{name}: {type(error).__name__} ({error.status}): {error.message}") from None
                await well_formed_reply(subject.method(name), result)
        hidden = {
            n
            for n, m in subject.definition.methods.items()
            if m.web.capability and not subject.declares(m.web.capability)
        }
        left = subject.definition.methods.keys() - tried - hidden
        if left and self.guesses:
            raise NotApplicable(f"name calls of {', '.join(sorted(left))} in x-conformance.examples")
        if left:
            raise CheckFailure(
                f"the suite has no example of {', '.join(sorted(left))}",
                wanted="an example of every method that the provider declares",
                mend="yield one in `examples` of the suite, or declare the method as not supported",
            )


class PluginApiConformance(ProviderConformance, MethodChecks):
    """The checks of every provider of an API that a package adds.

    A package's suite inherits from it, sets `api`, and overrides `call`, `answers` and `probe` of `Suite`, `examples`
    of `MethodChecks`, and `stream`, if the API streams. A method with `check` is a check of its own.
    """


class RoutedPluginApiConformance(RoutedProviderConformance, MethodChecks):
    """The same for an API that is routed by objects; `unserved_objects` says what no provider may take."""
