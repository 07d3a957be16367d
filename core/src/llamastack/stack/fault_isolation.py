"""What a provider raises ends its own work, not the stack: also `SystemExit`, or a cancellation out of nowhere."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from llamastack.provider.context import STACK_ITSELF, current_context, use_own_context
from llamastack.provider.error_translation import StrayExitError, as_stack_error
from llamastack.provider.errors import LlamaStackError, raise_translated
from llamastack.provider.provider_call import ProviderCall
from llamastack.provider.redaction import Redactor
from llamastack.provider.streams import Stream, close, closing, with_pieces
from llamastack.stack.resolver import PlannedProvider


def as_exception(raised: BaseException) -> Exception:
    """`raised` as an error of the provider that it came out of.

    Raises it again where it is meant for us: this task was cancelled, or somebody pressed Ctrl-C. Call it in the
    `except` block, in the task that met it.
    """
    if isinstance(raised, Exception):
        return raised
    if _is_for_us(raised):
        raise raised
    return StrayExitError(_described(raised), raised)


def _described(raised: BaseException) -> str:
    if isinstance(raised, BaseExceptionGroup):
        return "; ".join(_described(each) for each in raised.exceptions)
    text = " ".join(str(raised).split())
    kind = type(raised).__name__
    if isinstance(raised, Exception):
        return f"{kind}: {text}" if text else kind
    return f"raised {kind}" + (f": {text}" if text else "")


def _is_for_us(raised: BaseException) -> bool:
    if isinstance(raised, BaseExceptionGroup):
        return any(_is_for_us(each) for each in raised.exceptions)
    if isinstance(raised, GeneratorExit):
        return True  # somebody closes the generator or the coroutine that runs
    if isinstance(raised, asyncio.CancelledError):
        task = asyncio.current_task()
        # A thread that asks `anyio.from_thread.check_cancelled` learns of a cancellation before the task does.
        return task is None or task.cancelling() > 0 or anyio.current_effective_deadline() == -math.inf
    if isinstance(raised, KeyboardInterrupt):
        return _was_pressed(raised)
    return False


def _was_pressed(raised: KeyboardInterrupt) -> bool:
    """Whether it comes from the keyboard, and not out of the provider's code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True  # Python raises it wherever the code is, so that it looks the same as the provider's own
    at = raised.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    # asyncio's own handler raises it at the second Ctrl-C.
    return at is not None and at.tb_frame.f_code.co_name == "_on_sigint"


class ContainedCalls:
    """The calls of one provider: whatever it raises comes out as an error of the family, without its secrets."""

    def __init__(self, plan: PlannedProvider) -> None:
        self.provider_id, self.provider_type = plan.provider_id, plan.provider_type
        self.redact = Redactor(plan.config)

    def translate_error(self, raised: BaseException) -> LlamaStackError:
        """What the provider raised, as an error of the family.

        Raises it again where it is no fault of the provider, such as a cancellation of the caller.
        """
        return as_stack_error(as_exception(raised), self.provider_id, self.provider_type, self.redact)

    def failed(self, raised: BaseException) -> LlamaStackError:
        """The same for a user's call."""
        return self.translate_error(raised)

    async def answer(self, provider: object, call: ProviderCall) -> object:
        """What the provider replies, its errors translated."""
        return with_pieces(await self.reply(provider, call), self._guarded)

    async def reply(self, provider: object, call: ProviderCall) -> object:
        """The same; the errors of a stream's pieces are left to the caller."""
        try:
            return await call.by.send(provider, call)
        except BaseException as raised:
            raise_translated(raised, self.failed(raised))

    def _guarded(self, pieces: AsyncIterator[object]) -> Stream[Any]:
        """The pieces of a stream, its errors translated; closing it closes the provider's stream."""
        return Stream(self._translated(pieces), lambda: self.close(pieces))

    async def close(self, pieces: AsyncIterator[object]) -> None:
        """Close the provider's stream, its errors translated."""
        try:
            await close(pieces)
        except BaseException as raised:
            raise_translated(raised, self.translate_error(raised))

    async def _translated(self, pieces: AsyncIterator[object]) -> AsyncIterator[object]:
        try:
            async with closing(pieces):
                async for piece in pieces:
                    yield piece
        except BaseException as raised:
            raise_translated(raised, self.failed(raised))


class ContainedTasks(TaskGroup):
    """A provider's background tasks: what one raises is an `Exception`, which takes the instance down and no more.

    They outlive the request that starts one, so they see nothing of its context.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self.cancel_scope = group.cancel_scope

    def start_soon(  # type: ignore[override, misc]  # final in later versions of anyio only, abstract in earlier ones
        self, func: Callable[..., Coroutine[object, object, object]], *args: object, name: object = None
    ) -> object:
        return self._group.start_soon(_contained, func, args, name=name or _name_of(func))

    async def start(self, func: Callable[..., object], *args: object, name: object = None, **options: Any) -> Any:
        return await self._group.start(_contained, func, args, name=name or _name_of(func), **options)

    def create_task(self, coro: Coroutine[object, object, object], **options: Any) -> Any:
        return self._group.create_task(_contained(lambda: coro, ()), **options)

    async def __aenter__(self) -> TaskGroup:
        raise RuntimeError("the stack enters and leaves the task group of a provider")

    async def __aexit__(self, *_: object) -> bool:
        raise RuntimeError("the stack enters and leaves the task group of a provider")


def _name_of(func: Callable[..., object]) -> str:
    return f"{func.__module__}.{getattr(func, '__qualname__', '')}"


async def _contained(func: Callable[..., Any], args: tuple[object, ...], **task_status: TaskStatus[object]) -> object:
    own = STACK_ITSELF if current_context().principal is STACK_ITSELF else None
    try:
        with use_own_context(own):
            return await func(*args, **task_status)
    except Exception:
        raise
    except BaseException as raised:
        raise as_exception(raised) from raised
