"""Whether what a provider keeps outlives its process: then it must be there after a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from llamastack.provider import KeyValue
from llamastack_conformance.checks import NotApplicable
from llamastack_conformance.running import Running
from llamastack_conformance.stack_folder import StackFolder, written_state

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WRITES = "x-writes"
"""A key of `json_schema_extra` of a config's field that names a file or a folder to write to."""


class KeptData:
    """Watches a provider that has started, to find out whether it keeps its data outside its process.

    The setting `keeps_data` decides. Without it, it does if its config has a URL or a place that it writes to, if it
    keeps values in the stack's store, or if it has written files.
    """

    def __init__(self, running: Running, folder: StackFolder) -> None:
        self._setting = running.subject.settings.keeps_data
        config = running.instance.plan.config
        self._declared = _is_declared(config) or any(
            isinstance(value, KeyValue) for value in getattr(running.provider, "__dict__", {}).values()
        )
        self._single = _is_single_process(running.subject.spec.single_process, config)
        self._places = {str(place): place for place in _places(config)}
        own = folder.path / "providers" / running.subject.api / running.provider_id
        self._places[str(own)] = own
        self._before = written_state(self._places)

    def require(self) -> None:
        """Raises NotApplicable if its data ends with its process. Call it when the stack has stopped."""
        if not self.outlives:
            raise NotApplicable(
                "the provider keeps its data in its process, as far as its config and its files show; if it does not, "
                "say `keeps_data: true` in x-conformance"
            )

    def require_shared(self) -> None:
        """Raises NotApplicable if another instance of the provider cannot reach its data meanwhile."""
        if self._single:
            raise NotApplicable("with this config the provider is for one process alone (`single_process`)")

    @property
    def outlives(self) -> bool:
        """Whether it keeps its data outside its process."""
        if self._setting is not None:
            return self._setting
        return self._declared or written_state(self._places) != self._before


def _is_declared(config: object) -> bool:
    """Whether a field of the config has a URL, or says that the provider writes there."""
    if not isinstance(config, BaseModel):
        return False
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        extra = field.json_schema_extra
        if value is not None and isinstance(extra, dict) and _WRITES in extra:
            return True
        if _URL.match(str(value)):
            return True
    return False


def _is_single_process(declared: bool | tuple[str, ...], config: object) -> bool:
    return declared if isinstance(declared, bool) else any(getattr(config, name, None) for name in declared)


def _places(config: object) -> Iterator[Path]:
    """The files and folders that the config names."""
    if isinstance(config, BaseModel):
        for name in type(config).model_fields:
            value = getattr(config, name)
            if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
                yield Path(value)
