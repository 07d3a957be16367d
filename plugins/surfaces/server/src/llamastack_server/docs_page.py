"""The docs page: the OpenAPI document made readable, without anything fetched from elsewhere."""

from __future__ import annotations

from importlib.resources import files

DOCS_PAGE = files("llamastack_server").joinpath("docs_page.html").read_bytes()
