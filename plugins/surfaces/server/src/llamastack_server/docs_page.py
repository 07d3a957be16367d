"""The docs page: a readable view of the OpenAPI document. It loads nothing from other servers."""

from __future__ import annotations

from importlib.resources import files

DOCS_PAGE = files("llamastack_server").joinpath("docs_page.html").read_bytes()
