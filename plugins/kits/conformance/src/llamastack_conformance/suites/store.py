"""The suite of stores."""

from __future__ import annotations

from llamastack_conformance.suites.store_changes import ChangeChecks, StoreDeclarations
from llamastack_conformance.suites.store_faults import FaultChecks, ProcessChecks
from llamastack_conformance.suites.store_records import RecordChecks
from llamastack_conformance.suites.store_stress import StressChecks


class StoreConformance(StoreDeclarations, RecordChecks, ChangeChecks, ProcessChecks, FaultChecks, StressChecks):
    """The checks of a store: set `store_type`, and `config` if it has settings."""
