"""What a provider can do, in the words of the API's methods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

SUPPORTED = "supported"
UNSUPPORTED = "unsupported"
NOT_IMPLEMENTED = "not implemented"
_SINCE = re.compile(r"^since \d+(\.\d+)*$")


class Capabilities(Mapping[str, str]):
    """Capability name -> support.

    Support is "supported", "unsupported" (the backend cannot), "not implemented" (the backend can, the provider does
    not yet) or "since X" (supported from version X of the backend on). A capability that is not named is taken for
    supported: the provider decides when it is asked.
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
