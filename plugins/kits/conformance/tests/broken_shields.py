"""Safety providers that are each broken in what they read, or in how they keep shields apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from breaking import breaker
from broken_others import SAMPLE_MODEL, SHIELD, made_from

from llamastack.api.common import UserMessage, text_of
from llamastack.api.safety import RunShieldResponse, ViolationLevel
from llamastack.provider import Api, Deps
from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_provider_sample import SAFETY
from llamastack_provider_sample.safety import SampleSafety

OTHER = {"identifier": "other", "type": "words", "params": {"words": ["secret"]}}
SETTINGS = {
    "unsafe": "this is forbidden",
    "unsafe_more": ["this is banned"],
    "unsafe_any_case": True,
    "unsafe_any_blanks": True,
    "unsafe_by_shield": {"own": "this is forbidden", "other": "this is secret"},
    "objects": [{**SHIELD, "params": {"words": ["forbidden", "banned"]}}, OTHER],
}
unread = breaker("safety", SAFETY, made_from(SAFETY), settings=SETTINGS)


class _Reads(SampleSafety):
    """Gets other messages than it was sent."""

    def read(self, messages: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        return await super().run_shield(shield_type, self.read(messages), params)


def _with_text(message: Any, text: str) -> Any:
    return message.model_copy(update={"content": text})


class _SkipsARole(_Reads):
    role = ""

    def read(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if m.role != self.role]


for _role in ("user", "system", "assistant", "ipython"):  # a name each: the kit knows them by their names
    unread("run_shield.roles")(type(f"Skips_{_role}", (_SkipsARole,), {"role": _role}))


@unread("run_shield.roles")
class ObjectsToSystemMessages(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        more = [UserMessage(content="forbidden")] if any(m.role == "system" for m in messages) else []
        return await super().run_shield(shield_type, [*messages, *more], params)


@unread("run_shield.parts")
class ReadsPlainTextAlone(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if isinstance(m.content, str)]


@unread("run_shield.parts")
class ReadsTheFirstPart(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [_with_text(m, text_of(m.content[0] if isinstance(m.content, list) else m.content)) for m in messages]


@unread("run_shield.context")
class ReadsNoContext(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [_with_text(UserMessage(content=""), text_of(m.content)) for m in messages]


@unread("run_shield.long")
class CutsAt2000(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [_with_text(m, text_of(m.content)[:2000]) for m in messages]


@unread("run_shield.long")
class CutsAt20000(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [_with_text(m, text_of(m.content)[:20_000]) for m in messages]


@unread("run_shield.long")
class ReadsTheEnd(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [_with_text(m, text_of(m.content)[-1000:]) for m in messages]


@unread("run_shield.many")
class ReadsTheLastTen(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return messages[-10:]


@unread("run_shield.many")
class ReadsTheFirstTen(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return messages[:10]


@unread("run_shield.case")
class MindsCase(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if "forbidden" in text_of(m.content)]


@unread("run_shield.blanks")
class KnowsThePhrase(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if "this is forbidden" in text_of(m.content)]


@unread("run_shield.empty")
class NeedsAMessage(_Reads):
    def read(self, messages: list[Any]) -> list[Any]:
        return [messages[0], *messages[1:]]


@unread("run_shield.unknown")
class PassesUnknownShields(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        if shield_type not in self._words:
            return RunShieldResponse()
        return await super().run_shield(shield_type, messages, params)


@unread("run_shield.apart")
class CachesByText(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        verdicts = self.__dict__.setdefault("verdicts", {})
        key = str(messages)
        if key not in verdicts:
            verdicts[key] = await super().run_shield(shield_type, messages, params)
        return verdicts[key]


@unread("run_shield.apart")
class HasOneListForAll(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        words = [word for words in self._registered.values() for word in words]
        self._registered = {name: [*words] for name in self._registered}
        return await super().run_shield(shield_type, messages, params)


@unread("unregister.alike")
class UnregistersByPrefix(SampleSafety):
    async def unregister_shield(self, shield: Any) -> None:
        self._registered = {n: w for n, w in self._registered.items() if not n.startswith(shield.identifier)}


@unread("unregister.alike")
class FoldsCase(SampleSafety):
    async def unregister_shield(self, shield: Any) -> None:
        gone = shield.identifier.casefold()
        self._registered = {n: w for n, w in self._registered.items() if n.casefold() != gone}


@unread("unregister.alike")
class UnregistersAnyInstead(SampleSafety):
    async def unregister_shield(self, shield: Any) -> None:
        if self._registered.pop(shield.identifier, None) is None and self._registered:
            self._registered.popitem()


# ---- shields that ask a model ----------------------------------------------------------------------------------------


class AsksAModel(SampleSafety):
    """Sound: a model reads the text twice before the words are looked for."""

    inference: Any

    async def ask(self) -> None:
        await self.inference.chat_completion(model="sample-echo", messages=[UserMessage(content="Is it safe?")])

    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        await self.ask()
        await self.ask()
        return await super().run_shield(shield_type, messages, params)


def make_asking(cls: type) -> Any:
    async def make(config: Any, deps: Deps) -> Any:
        made = await SAFETY.load_factory()(config, deps)
        made.__class__ = cls
        made.inference = deps["inference"]
        return made

    make.__annotations__["return"] = cls
    return make


ASKING = replace(SAFETY, api_dependencies=(Api.inference,))
asking = breaker("safety", ASKING, make_asking, settings=SETTINGS, providers=SAMPLE_MODEL)


@asking("run_shield.model-fails")
class PassesWhenTheModelFails(AsksAModel):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        try:
            return await super().run_shield(shield_type, messages, params)
        except LlamaStackError:
            return RunShieldResponse()


@asking("run_shield.model-fails")
class BlamesTheClient(AsksAModel):
    async def ask(self) -> None:
        try:
            await super().ask()
        except LlamaStackError as error:
            raise InvalidRequestError(error.message, param="messages") from None


@unread("run_shield.every-reason")
class MindsTheFirstWord(SampleSafety):
    async def register_shield(self, shield: Any) -> None:
        first = {**shield.params, "words": shield.params["words"][:1]}
        await super().register_shield(shield.model_copy(update={"params": first}))


@unread("run_shield.private")
class RepeatsTheConversation(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        found = await super().run_shield(shield_type, messages, params)
        if found.violation is not None:
            found.violation.metadata["messages"] = [text_of(message.content) for message in messages]
        return found


@unread("run_shield.images")
class ExpectsTextsAlone(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        for message in messages:
            if isinstance(message.content, list):
                "".join(message.content)
        return await super().run_shield(shield_type, messages, params)


@unread("run_shield.objects")
class WarnsOnly(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        response = await super().run_shield(shield_type, messages, params)
        if response.violation is not None:
            response.violation.violation_level = ViolationLevel.warn
        return response
