"""Packages on disk that are each broken in one way: what only shows in an interpreter of its own, or in metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamastack_provider_openai import OPENAI

METADATA = """Metadata-Version: 2.4
Name: {name}
Version: 0.1.0
Summary: A package
Requires-Python: >=3.11
License-Expression: MIT
Requires-Dist: llamastack>=0.1

# A package
"""
_INIT = """
{extra}
from llamastack.provider import Capabilities, RemoteProviderSpec

SPEC = RemoteProviderSpec(
    api="inference",
    provider_type="remote::{name}",
    config_class="{config_class}",
    factory="{module}:get_adapter_impl",
    description="A package",
    capabilities=Capabilities(**{capabilities}),
)


async def get_adapter_impl(config, deps):
    raise NotImplementedError
"""


@dataclass(frozen=True)
class Package:
    """check_id: the check that has to find what is broken. extra: code at the top. drop: a line of the metadata."""

    check_id: str
    name: str
    extra: str = ""
    drop: str = ""
    typed: bool = True

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    def write(self, folder: Path) -> None:
        """Put the package and its metadata into a folder of `sys.path`."""
        package = folder / self.module
        package.mkdir()
        (package / "__init__.py").write_text(
            _INIT.format(
                extra=self.extra,
                name=self.name,
                module=self.module,
                config_class=OPENAI.config_class,
                capabilities=dict(OPENAI.capabilities),
            )
        )
        if self.typed:
            (package / "py.typed").touch()
        info = folder / f"{self.module}-0.1.0.dist-info"
        info.mkdir()
        kept = [line for line in METADATA.format(name=self.name).splitlines(keepends=True) if line.strip() != self.drop]
        (info / "METADATA").write_text("".join(kept))
        entry = f"[llamastack.providers.inference]\nremote::{self.name} = {self.module}:SPEC\n"
        (info / "entry_points.txt").write_text(entry)


PACKAGES = [
    Package("static.import", "brings-click", extra="import click"),
    Package("static.import-time", "takes-long", extra="sum(i * i for i in range(12_000_000))"),
    Package("static.typed", "untyped", typed=False),
    Package("static.metadata", "without-a-license", drop="License-Expression: MIT"),
    Package("static.metadata", "without-a-readme", drop="# A package"),
    Package("static.metadata", "without-a-summary", drop="Summary: A package"),
    Package("static.metadata", "needs-nothing", drop="Requires-Dist: llamastack>=0.1"),
    Package("static.metadata", "for-any-python", drop="Requires-Python: >=3.11"),
    Package("static.entry-point", "no-provider", extra="import sys; raise ImportError('no')"),
]
SOUND = Package("", "sound")
