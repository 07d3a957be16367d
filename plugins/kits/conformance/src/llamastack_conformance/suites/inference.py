"""The suite of the API inference."""

from __future__ import annotations

from llamastack_conformance.suites.inference_features import FeatureChecks
from llamastack_conformance.suites.inference_received import ReceivedChecks
from llamastack_conformance.suites.inference_received_features import ReceivedFeatureChecks
from llamastack_conformance.suites.inference_replies import ReplyChecks
from llamastack_conformance.suites.inference_streams import StreamChecks


class InferenceConformance(ReceivedChecks, ReceivedFeatureChecks, FeatureChecks, StreamChecks, ReplyChecks):
    """All checks of an inference provider. Source of the shapes: `llamastack.api.inference`."""
