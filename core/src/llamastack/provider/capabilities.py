"""What a provider can do, in the words of the API's methods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

SUPPORTED = "supported"
UNSUPPORTED = "unsupported"
NOT_IMPLEMENTED = "not implemented"
_SINCE_WORD = "since "
_SINCE = re.compile(rf"^{_SINCE_WORD}\d+(\.\d+)*$")


class Capabilities(Mapping[str, str]):
    """What a provider can and cannot do: `Capabilities(streaming="supported", ...)`, one of these words for each.

    - `supported`: the provider does it.
    - `unsupported`: the backend cannot.
    - `not implemented`: the backend can, the provider does not yet.
    - `since X`: supported from version X of the backend on, numbers between dots.

    The stack refuses what is declared as unsupported or not implemented with a 501, without asking the provider. The
    stack never refuses a capability that is not named: the provider decides. The conformance suite wants each one of
    the API named.
    """

    def __init__(self, **support: str) -> None:
        for name, value in support.items():
            if value not in (SUPPORTED, UNSUPPORTED, NOT_IMPLEMENTED) and not _SINCE.match(value):
                raise ValueError(
                    f"capability {name!r}: {value!r} is not one of 'supported', 'unsupported', 'not implemented', "
                    "'since <version>'"
                )
        self._support = dict(sorted(support.items()))

    def __getitem__(self, name: str) -> str:
        return self._support[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._support)

    def __len__(self) -> int:
        return len(self._support)

    def __repr__(self) -> str:
        return f"Capabilities({', '.join(f'{k}={v!r}' for k, v in self._support.items())})"

    def refused(self, name: str) -> bool:
        """Whether a request that needs `name` can be refused without asking the provider."""
        return self._support.get(name) in (UNSUPPORTED, NOT_IMPLEMENTED)

    def holds(self, name: str, backend_version: str | None = None) -> bool:
        """Whether `name` is declared to be there.

        backend_version: version of the backend, numbers between dots; without one, "since X" holds.
        """
        support = self._support.get(name, UNSUPPORTED)
        if support.startswith(_SINCE_WORD) and backend_version is not None:
            return _numbers(backend_version) >= _numbers(support.removeprefix(_SINCE_WORD))
        return support not in (UNSUPPORTED, NOT_IMPLEMENTED)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
