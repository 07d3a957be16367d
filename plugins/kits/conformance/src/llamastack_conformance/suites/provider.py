"""The checks that every suite has."""

from __future__ import annotations

from llamastack_conformance.suites.declarations import StaticChecks
from llamastack_conformance.suites.disk_faults import DiskChecks
from llamastack_conformance.suites.echoed_secrets import EchoChecks
from llamastack_conformance.suites.failure import FailureChecks
from llamastack_conformance.suites.lifecycle import LifeChecks
from llamastack_conformance.suites.nth_request import NthRegistrationChecks, NthRequestChecks
from llamastack_conformance.suites.registration import RegistrationChecks
from llamastack_conformance.suites.restart import RestartChecks, RestartedObjectChecks
from llamastack_conformance.suites.stress import StressChecks


class ProviderConformance(
    StaticChecks, LifeChecks, RestartChecks, FailureChecks, DiskChecks, EchoChecks, NthRequestChecks, StressChecks
):
    """The checks of every provider."""


class RoutedProviderConformance(ProviderConformance, RegistrationChecks, RestartedObjectChecks, NthRegistrationChecks):
    """The checks of every provider whose API is routed by resources: models, shields, memory banks."""
