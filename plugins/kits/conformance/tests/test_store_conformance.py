"""The stores of the core pass the suite of stores."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from core_stores import MemoryConformance, SqliteConformance


class TestSqlite(SqliteConformance):
    """Every check applies."""


class TestMemory(MemoryConformance):
    """It has no files, and no process shares it."""
