"""Checks of what is declared of each model, and of one instance."""

from __future__ import annotations

from typing import Any

from llamastack.api.common import SamplingParams
from llamastack.api.inference import ChatCompletionResponse
from llamastack.api.models import Model
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.streams import close
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import InferenceCalls

_MOST_MODELS = 6
_NOT_THERE = (400, 404, 405, 422, 501)
_PARAMS = SamplingParams(max_tokens=2)


class ModelChecks(InferenceCalls):
    """The checks of the metadata of models, and of what the settings say of the instance."""

    @check(
        "listing.metadata",
        tier=Tier.live,
        mend="list `embedding_dimension` of a model that embeds, and `context_length` of one that generates; leave out "
        "both where the backend does not say",
    )
    async def test_listing_metadata(self, subject: Subject) -> None:
        """a model with `embedding_dimension` makes vectors of that dimension, and without `context_length` it refuses
        to chat; a model that has `context_length` alone chats
        """
        async with subject.shared() as running:
            listed = [model for model in await running.list_objects() if model.unavailable_reason is None]
            known = [model for model in listed if model.metadata.keys() & {"embedding_dimension", "context_length"}]
            if not known:
                raise NotApplicable("the listed models have no `embedding_dimension` and no `context_length`")
            for model in known[:_MOST_MODELS]:
                await self._check_model(running, model)

    async def _check_model(self, running: Running, model: Model) -> None:
        subject, name, dimension = running.subject, model.identifier, model.metadata.get("embedding_dimension")
        if dimension is not None and subject.declares("embeddings"):
            vectors = (await running.calls.embeddings(model=running.qualified(name), contents=["a llama"])).embeddings
            if len(vectors[0]) != dimension:
                raise CheckFailure(f"'{name}' has embedding_dimension {dimension}, and makes {len(vectors[0])} numbers")
        if not subject.declares("chat_completion"):
            return
        if model.only_embeds:
            await _refuses(f"'{name}' only embeds, and", self._chat_with(running, name))
        elif "context_length" in model.metadata and dimension is None:  # an embedder may have both
            reply = await self._chat_with(running, name)
            if not isinstance(reply, ChatCompletionResponse):
                raise CheckFailure(f"'{name}' has a context_length, and answers a chat with {str(reply)[:200]}")

    async def _chat_with(self, running: Running, name: str) -> Any:
        return await self._chat(running, model=running.qualified(name), sampling_params=_PARAMS)

    @check(
        "listing.lacks",
        tier=Tier.live,
        mend="let the backend's refusal through as an error; an instance that has the capability does not lack it",
    )
    async def test_listing_lacks(self, subject: Subject) -> None:
        """calls that need a capability which this instance lacks are refused with a 4xx or 501 (x-conformance.lacks)"""
        if not subject.settings.lacks:
            raise NotApplicable("x-conformance.lacks names no capability")
        unknown = [name for name in subject.settings.lacks if not subject.spec.capabilities.holds(name)]
        if unknown:
            raise CheckFailure(
                f"x-conformance.lacks: {', '.join(unknown)}", wanted="capabilities that the spec declares"
            )
        async with subject.shared() as running:
            for name in subject.settings.lacks:
                probe = await self.probe(running, name)
                await _refuses(f"a call that needs {name}", getattr(running.calls, probe.method)(**probe.arguments))


async def _refuses(what: str, call: Any) -> None:
    try:
        result = await call
        await close(result)
    except LlamaStackError as error:
        if error.status not in _NOT_THERE:
            raise CheckFailure(f"{what} gets {type(error).__name__} ({error.status}): {error.message}") from None
    else:
        raise CheckFailure(f"{what} is answered: {str(result)[:200]}", wanted="a refusal with a 4xx or 501")
