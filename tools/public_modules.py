"""What packages may import: the modules that the docs list as public, and what each is for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from read_source import table

PACKAGES = (
    "llamastack",
    "llamastack.api",
    "llamastack.client",
    "llamastack.provider",
    "llamastack.stack",
    "llamastack_adapters.openai_dialect",
    "llamastack_conformance",
    "llamastack_memory_kit",
    "llamastack_memory_kit.documents",
    "llamastack_server",
    "llamastack_telemetry",
)
"""Of these the names in `__all__`; of `llamastack.api` what its modules define."""
MODULES: dict[str, tuple[str, ...]] = {
    "api": (
        "llamastack.api.agent_tools",
        "llamastack.api.agents",
        "llamastack.api.base",
        "llamastack.api.common",
        "llamastack.api.created_ids",
        "llamastack.api.definition",
        "llamastack.api.fail_fast_validation",
        "llamastack.api.files",
        "llamastack.api.id_fields",
        "llamastack.api.inference",
        "llamastack.api.inspect",
        "llamastack.api.memory",
        "llamastack.api.memory_banks",
        "llamastack.api.models",
        "llamastack.api.pagination",
        "llamastack.api.safety",
        "llamastack.api.schema",
        "llamastack.api.shields",
        "llamastack.api.telemetry",
        "llamastack.api.webmethod",
    ),
    "provider": (
        "llamastack.lazy_imports",
        "llamastack.provider.api_handle",
        "llamastack.provider.backoff",
        "llamastack.provider.builtin_apis",
        "llamastack.provider.commands",
        "llamastack.provider.compliance",
        "llamastack.provider.config_sections",
        "llamastack.provider.connection_errors",
        "llamastack.provider.context",
        "llamastack.provider.control_characters",
        "llamastack.provider.deps",
        "llamastack.provider.descriptor_shortage",
        "llamastack.provider.error_translation",
        "llamastack.provider.errors",
        "llamastack.provider.errors_from_wire",
        "llamastack.provider.hookspecs",
        "llamastack.provider.import_path",
        "llamastack.provider.jobs",
        "llamastack.provider.private_files",
        "llamastack.provider.protocols",
        "llamastack.provider.provider_call",
        "llamastack.provider.redaction",
        "llamastack.provider.routes",
        "llamastack.provider.spec",
        "llamastack.provider.store",
        "llamastack.provider.streams",
        "llamastack.provider.validation",
        "llamastack.provider.validation_paths",
    ),
    "http": (
        "llamastack.http.answer_limits",
        "llamastack.http.client",
        "llamastack.http.connections",
        "llamastack.http.lone_surrogates",
        "llamastack.http.retry_headers",
        "llamastack.http.sse",
    ),
    "stack": (
        "llamastack.stack.access",
        "llamastack.stack.config",
        "llamastack.stack.discovery",
        "llamastack.stack.plugins",
        "llamastack.stack.supervisor",
        "llamastack.stack.yaml_source",
    ),
    "kits": (
        "llamastack_adapters.backend",
        "llamastack_adapters.capabilities",
        "llamastack_adapters.chat_request",
        "llamastack_adapters.credentials",
        "llamastack_adapters.data_urls",
        "llamastack_adapters.decompression",
        "llamastack_adapters.error_bodies",
        "llamastack_adapters.event_streams",
        "llamastack_adapters.http_client",
        "llamastack_adapters.non_streaming_replies",
        "llamastack_adapters.rate_limit_retries",
        "llamastack_adapters.remote_inference",
        "llamastack_adapters.reply_checks",
        "llamastack_adapters.sse_blocks",
        "llamastack_adapters.surrogate_pairs",
        "llamastack_adapters.tool_schemas",
        "llamastack_adapters.transports",
        "llamastack_conformance.checks",
        "llamastack_conformance.provider_under_test",
        "llamastack_adapters.url_paths",
        "llamastack_conformance.running",
        "llamastack_conformance.suites.suite",
        "llamastack_memory_kit.flat_records",
        "llamastack_memory_kit.sqlite",
        "llamastack_telemetry.conventions",
    ),
}
"""By the part of the page. Of these what they define, or the names in `__all__` where they have it."""


def public_names(module: str) -> set[str]:
    """What may be imported from a public module or package."""
    found = importlib.import_module(module)
    exported = getattr(found, "__all__", None)
    if exported is not None:
        return {*exported}
    if module == "llamastack.api":
        return {name for each in MODULES["api"] for name in public_names(each)} | {"Api"}
    return {name for name in _defined_in(Path(str(found.__file__))) if not name.startswith("_")}


def _defined_in(file: Path) -> Iterator[str]:
    """What a module defines, without what it imports from elsewhere."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def public_packages(_: str) -> str:
    """The packages, as a list in a sentence."""
    return ", ".join(f"`{name}`" for name in PACKAGES) + "."


def public_modules(part: str) -> str:
    """The modules of one part, with the first sentence of what each says of itself."""
    rows = [(f"`{name}`", (importlib.import_module(name).__doc__ or "").partition("\n")[0]) for name in MODULES[part]]
    return table(("module", "what"), rows)


BLOCKS: dict[str, Callable[[str], str]] = {"public-packages": public_packages, "public-modules": public_modules}
