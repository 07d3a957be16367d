"""The stores of the core pass the suite of stores."""

from __future__ import annotations

from core_stores import MemoryConformance, SqliteConformance


class TestSqlite(SqliteConformance):
    """Every check applies."""


class TestMemory(MemoryConformance):
    """It has no files, and no process shares it."""
