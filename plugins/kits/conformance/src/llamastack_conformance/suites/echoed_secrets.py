"""Checks of secrets where a backend repeats the request in its answers: its headers with the key, and its URL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pydantic import SecretStr

from llamastack.api.inspect import ProviderStatus
from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.redaction import Redactor
from llamastack_conformance.backend_tap import Request, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.log_capture import everything_logged, lines_of
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import target_of
from llamastack_conformance.running import Running
from llamastack_conformance.stack_folder import StackFolder, files_of
from llamastack_conformance.suites.failure import parts_of
from llamastack_conformance.suites.limits import LimitChecks, Make
from llamastack_conformance.suites.registration import RegistrationChecks

_STATUSES = (200, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503)
_LATER_STATUSES = (400, 401, 500)
_CLIENTS_KEY = "9d2c7e-conformance-secret-of-a-client"
_MOST_BYTES = 16_000_000


@dataclass
class _Shown:
    """What anybody can see, by where it is."""

    texts: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, error: LlamaStackError) -> None:
        parts = (str(error), repr(error), json.dumps(error.to_wire()), *lines_of(error))
        self.texts[f"the error of {where}"] = "\n".join(parts)

    def note(self, where: str, text: str) -> None:
        """Keep a text, after those that are known from there."""
        self.texts[where] = f"{self.texts.get(where, '')}{text}\n"

    def add_files(self, folder: StackFolder) -> None:
        for file in files_of(folder.path):
            with suppress(OSError):  # it has just been removed
                self.note(f"the file {file.name}", file.read_bytes()[:_MOST_BYTES].decode("latin-1"))

    def check(self, secrets: Mapping[str, str]) -> None:
        """Raise CheckFailure if a secret, or half of one, is in any of them."""
        for name, value in secrets.items():
            for part in parts_of(value):
                for where, text in self.texts.items():
                    if part in text:
                        place = text.index(part)
                        shown = text[max(0, place - 100) : place + 100]
                        for secret in (value, part):
                            shown = Redactor(SecretStr(secret))(shown)
                        whole = "" if part == value else "half of "
                        raise CheckFailure(f"{whole}{name} is in {where}: {shown}")


class EchoChecks(LimitChecks):
    """Checks of every provider whose backend has a URL in its config."""

    async def more_kinds(self, running: Running) -> list[tuple[str, Make]]:
        """(name, call) of calls whose answers a provider may ignore, in addition to `each_kind`."""
        return []

    async def _targets_of_listing(self, running: Running) -> set[bytes]:
        if not isinstance(self, RegistrationChecks):
            return set()
        running.tap.requests.clear()
        await running.list_objects()
        return {target_of(request) for request in running.tap.requests}

    @check(
        "failure.echoed-secrets",
        tier=Tier.failure,
        mend="redact what the backend says with the secrets of the config and of the client before it becomes an error",
    )
    async def test_failure_echoed_secrets(self, subject: Subject) -> None:
        """if the backend repeats headers and URL in an error of any status, in any kind of call, no secret is in the
        error, the log, a repr, a listing or a file that the stack or the provider has written
        """
        secrets = subject.secret_values()
        changes = {name: value for name, value in secrets.items() if name in subject.secret_names}
        data = subject.client_data(_CLIENTS_KEY)
        secrets |= {f"the client's {name}": value for name, value in (data or {}).items()}
        if not secrets:
            raise NotApplicable("the provider takes no secret")
        subject.require_backend()
        shown = _Shown()
        with everything_logged() as logged:
            async with subject.kept_folder() as folder:
                async with subject.start(changes=changes, tapped=True, folder=folder) as running:
                    await self.prepare(running)
                    kinds = [*await self.each_kind(running), *await self.more_kinds(running)]
                    listing = await self._targets_of_listing(running)
                    for client in (None, data):
                        with use_provider_data(client):
                            await _echoed(running, kinds, listing, shown)
                    await _goes_down(running, shown)
                    running.tap.clear()
                    config = subject.config_class.model_validate(running.instance.plan.config)
                    shown.note("a repr", f"{config!r} {config} {running.provider!r}")
                    if isinstance(self, RegistrationChecks):
                        shown.note("a listing", repr(await running.list_objects()))
                    shown.note("the health", repr(await running.stack.api("inspect").health()))
                shown.add_files(folder)
        for line in logged:
            shown.note(f"the log, by {line.partition(':')[0]}", line)
        shown.check(secrets)


async def _echoed(running: Running, kinds: Sequence[tuple[str, Make]], listing: set[bytes], shown: _Shown) -> None:
    """Make each kind of call at each status. listing: the requests of a listing, with which many calls begin."""
    for name, make in kinds:
        ways = [(status, set[bytes]()) for status in _STATUSES]
        ways += [(status, listing) for status in _LATER_STATUSES if listing]
        for status, passed_on in ways:
            if running.instance.status is not ProviderStatus.healthy:  # then the stack refuses calls by itself
                running.tap.clear()
                await running.instance.refresh(force=True)
            running.tap.disturb(inject=partial(_echo, status=status, passed_on=passed_on))
            try:
                await make()
            except LlamaStackError as error:
                shown.add(f"{name} at {status}", error)


async def _goes_down(running: Running, shown: _Shown) -> None:
    """Let the stack ask the provider what it serves, and note what it shows of the failure."""
    for status in _LATER_STATUSES:
        running.tap.disturb(inject=partial(_echo, status=status, passed_on=set()))
        await running.instance.refresh(force=True)
        shown.note("the reason of a provider that is down", str(running.instance.reason))


def _echo(request: Request, status: int, passed_on: set[bytes]) -> bytes | None:
    """An answer that repeats the request; None for requests that go on to the backend."""
    if target_of(request) in passed_on:
        return None
    said = f"wrong: {request.whole.decode('latin-1')}"
    body = json.dumps({"error": {"message": said}, "message": said}) if status % 2 == 0 else said
    return answer(status, body, retry_after="3600")
