"""Checks of a provider whose disk is full."""

from __future__ import annotations

from typing import Any

from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.full_disk import full_disk
from llamastack_conformance.kept_data import KeptData
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.restart import require_equal, usable
from llamastack_conformance.suites.suite import Suite


class DiskChecks(Suite):
    """Checks of every provider that keeps its data in files."""

    async def write(self, running: Running) -> None:
        """Put something new into the provider, after `prepare`."""
        await self.put_content(running)

    async def written(self, running: Running) -> Any:
        """What `write` has put into the provider, for a comparison."""
        return await self.content(running)

    @check(
        "failure.full-disk",
        tier=Tier.failure,
        mend="let the error of a write through, and return when all is written",
    )
    async def test_failure_full_disk(self, subject: Subject) -> None:
        """when no file can be written, a call that writes fails, or what it has written is there, also after a restart;
        when files can be written again, calls work
        """
        if subject.backend_url is not None:
            raise NotApplicable("the provider writes to its backend, not to a disk of its own")
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await self.prepare(running)
                if await self._fails_to_write(running):
                    await self.write(running)
                    await self.written(running)
                    return
                before = await self._read(running, "at once")
                running.leave()
            kept.require()
            async with subject.start(folder=folder) as running:
                await usable(running)
                require_equal(before, await self._read(running, "after a restart"), "after a restart")

    async def _fails_to_write(self, running: Running) -> bool:
        with full_disk():
            try:
                await self.write(running)
            except LlamaStackError:
                return True
        return False

    async def _read(self, running: Running, when: str) -> Any:
        try:
            found = await self.written(running)
        except LlamaStackError as error:
            found, got = None, f"reading raises {type(error).__name__}: {error.message}"
        else:
            got = "nothing of it is there"
        if not found:
            raise CheckFailure(f"a call that writes succeeded on a full disk; {when} {got}")
        return found
