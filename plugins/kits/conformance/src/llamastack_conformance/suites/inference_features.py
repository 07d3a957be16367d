"""Checks of log probabilities, JSON schemas, tools and images."""

from __future__ import annotations

import math
from typing import Any

from llamastack.api.common import SamplingParams, StopReason, ToolCall, ToolChoice
from llamastack.api.inference import LogProbConfig, ToolCallDelta, ToolCallParseStatus
from llamastack.provider.errors import NotSupportedError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.inference_calls import (
    DOT,
    LONG,
    SUNNY,
    WEATHER,
    InferenceCalls,
    check_plain_message,
    is_sunny,
    text_of_pieces,
    text_of_reply,
)
from llamastack_conformance.suites.inference_ways import ANSWERS
from llamastack_conformance.suites.suite import refused

_MOST_TOP_LOGPROBS = 2
TOOL_CALL, STREAMED_CALL = "a tool call", "a streamed tool call"
"""The names by which `ANSWERS` knows the backend's answers with a call of `weather`."""
_IS_IT_SUNNY = 'Is it sunny? Answer {"sunny": true} or {"sunny": false}.'


class FeatureChecks(InferenceCalls):
    """The checks of what a request may use."""

    @check(
        "logprobs.works",
        tier=Tier.live,
        capability="logprobs",
        mend="return one TokenLogProbs per position, natural logarithms, the chosen token first",
    )
    async def test_logprobs_works(self, subject: Subject) -> None:
        """each position has log probabilities: the chosen token and the likeliest ones, none above 0"""
        config = LogProbConfig(top_k=_MOST_TOP_LOGPROBS)
        async with subject.shared() as running:
            ask = self._chat if subject.declares("chat_completion") else self._complete
            reply = await ask(running, logprobs=config)
        if not reply.logprobs:
            raise CheckFailure(f"logprobs {reply.logprobs}")
        for place in reply.logprobs:
            values = place.logprobs_by_token.values()
            if not 1 <= len(values) <= _MOST_TOP_LOGPROBS + 1 or any(v > 0 or not v < math.inf for v in values):
                raise CheckFailure(f"{place.logprobs_by_token}", wanted="1 to 3 tokens with logarithms of at most 0")

    test_logprobs_refused = refused("logprobs")

    @check(
        "json_schema.works",
        tier=Tier.live,
        capability="json_schema",
        mend="pass the schema in the backend's form, and raise if the backend ignored it",
    )
    async def test_json_schema_works(self, subject: Subject) -> None:
        """a reply to a request with a JSON schema is JSON that fits it, whole and streamed"""
        async with subject.shared() as running:
            asked: dict[str, Any] = {"response_format": SUNNY, "sampling_params": LONG}
            texts = [text_of_reply(await self._chat(running, _IS_IT_SUNNY, **asked))]
            if subject.declares("streaming"):
                pieces = await self._chat(running, _IS_IT_SUNNY, **asked, stream=True)
                texts.append(text_of_pieces([piece async for piece in pieces]))
        wrong = [text for text in texts if not is_sunny(text)]
        if wrong:
            raise CheckFailure(f"{wrong[0]!r}", wanted='{"sunny": true} or {"sunny": false}')

    test_json_schema_refused = refused("json_schema")

    @check(
        "tools.works",
        tier=Tier.live,
        capability="tools",
        mend="pass tools and tool_choice to the backend, and return ToolCall with the arguments as a dict, not as text",
    )
    async def test_tools_works(self, subject: Subject) -> None:
        """a required tool is called: a ToolCall with an id, the tool's name and its arguments"""
        async with subject.shared(tapped=subject.backend_url is not None) as running:
            reply = await self._tool_call(running)
        well_formed(subject.method("chat_completion"), reply)
        _weather_call(reply.completion_message.tool_calls)
        if reply.completion_message.stop_reason is not StopReason.end_of_message:
            raise CheckFailure(f"stop_reason {reply.completion_message.stop_reason}", wanted="end_of_message")

    @check(
        "tools.streamed",
        tier=Tier.live,
        capability="tools",
        mend="yield ToolCallDelta: started, in_progress with raw text, success with the whole ToolCall",
    )
    async def test_tools_streamed(self, subject: Subject) -> None:
        """a streamed tool call is deltas that begin with started and end with success and the whole ToolCall"""
        if not subject.declares("streaming"):
            raise NotApplicable("the provider declares no `streaming`")
        async with subject.shared(tapped=subject.backend_url is not None) as running:
            events = [piece.event for piece in await self._tool_call(running, stream=True)]
        deltas = [event.delta for event in events if isinstance(event.delta, ToolCallDelta)]
        statuses = [delta.parse_status for delta in deltas]
        kinds = ToolCallParseStatus
        if not statuses or statuses[-1] is not kinds.success or statuses[0] is not kinds.started:
            raise CheckFailure(f"tool call deltas of {[str(status) for status in statuses]}")
        _weather_call([delta.content for delta in deltas if delta.parse_status is kinds.success])

    async def _tool_call(self, running: Running, **more: Any) -> Any:
        """A reply with a tool call; with a tap, later ones get the backend's answer to it again."""
        if not running.is_tapped:
            return await self.known(running, self._weather, **more)

        async def ask() -> Any:
            return await self.known(running, self._weather, again=True, **more)

        return await ANSWERS.prime(running.subject, running.tap, STREAMED_CALL if more else TOOL_CALL, ask)

    async def _weather(self, running: Running, **more: Any) -> Any:
        given: dict[str, Any] = {
            "model": await self._model(running, running.subject.settings.tool_model),
            "tools": [WEATHER],
            "sampling_params": SamplingParams(max_tokens=64),
            **more,
        }
        question = "What is the weather in Paris?"
        try:
            return await self._chat(running, question, **given, tool_choice=ToolChoice.required)
        except NotSupportedError as error:
            if error.param != "tool_choice":
                raise
            # The backend supports tools, but the model decides whether to call one.
            return await self._chat(running, question, **given)

    test_tools_refused = refused("tools")

    @check(
        "images.works",
        tier=Tier.live,
        capability="images",
        mend="pass the image's bytes in the backend's form",
    )
    async def test_images_works(self, subject: Subject) -> None:
        """a message with an image in a data: URL gets an answer"""
        if subject.settings.image_model is None:
            raise NotApplicable("name a model that sees images in x-conformance.image_model")
        async with subject.shared() as running:
            model = await self._model(running, subject.settings.image_model)
            reply = await self._chat(running, ["What colour is this?", DOT], model=model)
        check_plain_message(reply.completion_message)

    test_images_refused = refused("images")


def _weather_call(calls: list[Any]) -> None:
    if len(calls) < 1 or not all(isinstance(call, ToolCall) for call in calls):
        raise CheckFailure(f"tool calls {calls}")
    call = calls[0]
    if call.tool_name != "weather" or not call.call_id or not isinstance(call.arguments.get("city"), str):
        raise CheckFailure(f"{call}", wanted="a call of `weather` with an id and a `city`")
