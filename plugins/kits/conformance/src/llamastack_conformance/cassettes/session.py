"""A run of a suite with a cassette: the provider gets the address of a recorder or a replayer as its backend's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import SocketAttribute
from anyio.from_thread import BlockingPortal, start_blocking_portal

from llamastack_conformance.cassettes import cassette as files
from llamastack_conformance.cassettes.cassette import Cassette, CassetteError, Recorded
from llamastack_conformance.cassettes.deck import Deck, Recorder, Replayer
from llamastack_conformance.cassettes.http_server import serve
from llamastack_conformance.cassettes.scrubbing import Scrubber, as_text, texts_of
from llamastack_conformance.checks import SUITE_VERSION, Check, CheckFailure, NotApplicable
from llamastack_conformance.configured import ConfiguredProvider, SubjectError

_NAMED = 3


def file_of(place: Path, suite: str) -> Path:
    """The file of a suite's cassette: `place` if its name ends in .json, else a file in the folder `place`."""
    return place if place.suffix == ".json" else place / f"{suite}.json"


class CassetteSession:
    """What the checks of one provider record, or replay.

    notes: lines of the report about a cassette, such as that it is stale. faults: those that fail the run.
    """

    def __init__(self, subject: ConfiguredProvider, file: Path, *, records: bool) -> None:
        """Raises SubjectError if the provider has no URL of a backend, or the cassette cannot be used."""
        self._subject = subject
        self._file = file
        self._records = records
        self._url = subject.backend_url or ""
        if not self._url:
            raise SubjectError(
                "a cassette needs the field of the config that holds the backend's http(s) URL; name it in "
                "x-conformance.backend_url_field"
            )
        origin = subject.origin
        self._made = Cassette(SUITE_VERSION, origin.api, origin.type, origin.package, origin.version)
        self._before = self._read()
        self.notes: list[str] = []
        self.faults: list[str] = []
        client = [text.replace("{key}", "") for text in texts_of(subject.settings.client_data or {})]
        self._scrubber = Scrubber([*subject.secret_values().values(), *client], self._url)
        self._portal: BlockingPortal | None = None
        self._not_kept: set[str] = set()
        self._deck: Deck = (
            Recorder(self._url, self._made, self._scrubber)
            if records
            else Replayer(self._before or self._made, self._scrubber)
        )

    def _read(self) -> Cassette | None:
        """The cassette as it is. Raises SubjectError if it cannot be read, or is of another provider."""
        if self._records and not self._file.exists():
            return None
        try:
            found = files.read(self._file)
        except CassetteError as error:
            raise SubjectError(str(error)) from None
        if (found.api, found.provider_type) != (self._made.api, self._made.provider_type):
            raise SubjectError(
                f"{self._file}: it was recorded with {found.api}={found.provider_type}, and this is "
                f"{self._made.api}={self._made.provider_type}; for several providers, name a folder"
            )
        return found

    @contextmanager
    def open(self) -> Iterator[None]:
        """Put the recorder or the replayer before the backend while the block lasts."""
        # It has a thread of its own: checks watch the event loop of the provider.
        with start_blocking_portal("asyncio", name="llamastack-cassette") as self._portal:
            try:
                with self._portal.wrap_async_context_manager(_Server(self._deck)) as port:
                    parts = urlsplit(self._url)
                    user, at, _ = parts.netloc.rpartition("@")
                    moved = urlunsplit(("http", f"{user}{at}127.0.0.1:{port}", parts.path, parts.query, ""))
                    self._subject.move_backend(moved)
                    yield
            finally:
                self._finish()  # no answer is on its way any more

    @contextmanager
    def check(self, described: Check) -> Iterator[None]:
        """One check runs. Raises NotApplicable, or CheckFailure if the cassette lacks an answer that it needs."""
        if self._portal is None:
            raise RuntimeError("a check runs while the session is open")
        if not self._records:
            left_out = self._before.left_out.get(described.id, "") if self._before else ""
            if reason := described.not_replayed or left_out:
                raise NotApplicable(f"not with a cassette: {reason}")
        elif described.not_replayed:
            self._not_kept.add(described.id)
        self._portal.call(self._deck.begin, described.id)
        try:
            yield
        except Exception:
            self._require_recorded()
            raise
        self._require_recorded()

    def _require_recorded(self) -> None:
        """Raises CheckFailure if a request had no recorded answer: whatever the check found rests on it."""
        missing = list(self._deck.missing) if isinstance(self._deck, Replayer) else []
        if missing:
            more = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise CheckFailure(
                f"{self._file} has no answer to {missing[0]}{more}",
                wanted="only requests that were recorded",
                mend=f"record again: --llamastack-record {self._file}; or the provider sends what it should not",
            ) from None

    # ---- its end -------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._records:
            try:
                self._write()
            except CassetteError as error:
                self.faults.append(str(error))
        else:
            self._judge()

    def _write(self) -> None:
        """Write the cassette. Raises CassetteError, also if a secret would be in it."""
        left_out = self._not_kept | self._made.left_out.keys()
        checks = {
            check: [] if check in left_out else [self._scrubbed(check, each) for each in found]
            for check, found in self._made.checks.items()
        }
        made = replace(self._made, checks=checks)
        before = self._before
        # Only some of the checks may have run.
        made = made.with_kept(before if before is not None and before.same_make(made) else made)
        files.write(self._file, made)
        count = sum(map(len, made.checks.values()))
        self.notes.append(f"{self._file}: recorded {count} exchanges of {len(made.checks)} checks")

    def _scrubbed(self, check: str, each: Recorded) -> Recorded:
        each = replace(
            each,
            target=self._scrubber.text(each.target),
            body=self._scrubber.data(each.body),
            pieces=self._scrubber.pieces(each.pieces),
            headers=[(name, self._scrubber.text(value)) for name, value in each.headers],
        )
        shown = (each.target, as_text(each.headers), *(p.decode(errors="replace") for p in (each.body, each.answer)))
        if any(self._scrubber.remains_in(text) for text in shown):
            raise CassetteError(
                f"{self._file}: it was not written: an exchange of '{check}' ({each.method} {each.target}) holds a "
                "secret in a form that cannot be replaced"
            )
        return each

    def _judge(self) -> None:
        """Say whether the cassette is stale."""
        before, made = self._before, self._made
        if before is None or not isinstance(self._deck, Replayer):
            return
        reasons = [
            f"it was recorded with {what} {old}, and this is {new}"
            for what, old, new in (
                ("suite", before.suite_version, made.suite_version),
                (before.package, before.version, made.version),
                ("package", before.package, made.package),
            )
            if old != new
        ]
        if unused := self._deck.player.unused():
            named = "; ".join(unused[:_NAMED])
            reasons.append(f"{len(unused)} requests were not made, such as {named}")
        ran = len(self._deck.player.ran & before.checks.keys())
        verdict = f"stale, record again: {'; '.join(reasons)}" if reasons else "up to date"
        self.notes.append(f"{self._file}: {ran} checks replayed; {verdict}")
        if self._deck.missing:
            self.faults.append(f"{self._file} has no answer to {self._deck.missing[0]}, at the end of the run")


class _Server:
    """A deck behind a port of 127.0.0.1."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck

    async def __aenter__(self) -> int:
        self._listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._listener.serve, lambda stream: serve(stream, self._deck.handle), self._group)
        return int(self._listener.extra(SocketAttribute.local_port))  # noqa: S610 - nothing of Django

    async def __aexit__(self, *_: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        await self._listener.aclose()
        await self._deck.aclose()
