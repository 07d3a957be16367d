"""Banks in one SQLite file: what providers built on SQLite share. It needs the extra `sqlite`."""

from __future__ import annotations

from llamastack_memory_kit.sqlite.file import SqliteFile
from llamastack_memory_kit.sqlite.memory import BankRow, SqliteConfig, SqliteMemory

__all__ = ["BankRow", "SqliteConfig", "SqliteFile", "SqliteMemory"]
