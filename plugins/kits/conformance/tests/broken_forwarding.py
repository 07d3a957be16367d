"""Inference providers that are each broken in one way at requests in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from broken_inference import Base, answered, broken

from llamastack_adapters.openai_dialect import OpenAIRequest


@broken("forwarded.reply")
class ForwardsNothing(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        return None


@broken("forwarded.reply")
class ForwardsTheClientsName(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        return await super().forward_openai(replace(request, named=self.backend_name(request.model)))


@broken("forwarded.reply")
class AnswersWithAnError(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        return b'{"error": {"message": "out of memory", "code": 503}}'


@broken("forwarded.reply")
class AnswersInNativeForm(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        return answered("Paris").model_dump_json().encode()


@broken("forwarded.reply")
class DecodesWhatItForwards(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        return json.loads(await super().forward_openai(request))  # type: ignore[arg-type]


class _Reblocks(Base):
    """Reads a whole forwarded stream, and yields other blocks."""

    def blocks_of(self, stream: bytes) -> list[bytes]:
        raise NotImplementedError

    async def forward_openai(self, request: OpenAIRequest) -> Any:
        answer = await super().forward_openai(request)
        if not isinstance(answer, AsyncIterator):
            return answer
        stream = b"".join([block async for block in answer])

        async def blocks() -> AsyncIterator[bytes]:
            for block in self.blocks_of(stream):
                yield block

        return blocks()


@broken("forwarded.stream")
class CutsEvents(_Reblocks):
    def blocks_of(self, stream: bytes) -> list[bytes]:
        return [stream[:100], stream[100:]]


@broken("forwarded.stream")
class EndsWithoutAWord(_Reblocks):
    def blocks_of(self, stream: bytes) -> list[bytes]:
        return [stream.removesuffix(b"data: [DONE]\n\n")]


@broken("forwarded.stream")
class SaysOnlyThatItEnds(_Reblocks):
    def blocks_of(self, stream: bytes) -> list[bytes]:
        return [b"data: [DONE]\n\n"]


@broken("forwarded.stream")
class NeverFinishes(_Reblocks):
    def blocks_of(self, stream: bytes) -> list[bytes]:
        events = [block + b"\n\n" for block in stream.split(b"\n\n") if block]
        return [event for event in events if b'"finish_reason": "' not in event]


@broken("forwarded.stream")
class ForwardsNoStream(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        plain = request.body.replace(b'"stream": true', b'"stream": false')
        return await super().forward_openai(replace(request, body=plain, stream=False))
