"""The suite of the API inference."""

from __future__ import annotations

from llamastack_conformance.suites.forms import FormChecks
from llamastack_conformance.suites.forwarding import ForwardingChecks
from llamastack_conformance.suites.inference_features import FeatureChecks
from llamastack_conformance.suites.inference_replies import ReplyChecks
from llamastack_conformance.suites.inference_streams import StreamChecks


class InferenceConformance(ForwardingChecks, FormChecks, FeatureChecks, StreamChecks, ReplyChecks):
    """All checks of an inference provider. Source of the shapes: `llamastack.api.inference`."""
