"""The suite of the API inference."""

from __future__ import annotations

from llamastack_conformance.suites.inference_features import FeatureChecks
from llamastack_conformance.suites.inference_left_streams import LeftStreamChecks
from llamastack_conformance.suites.inference_logprobs import LogprobChecks
from llamastack_conformance.suites.inference_models import ModelChecks
from llamastack_conformance.suites.inference_overlap import OverlapChecks
from llamastack_conformance.suites.inference_prompts import PromptChecks
from llamastack_conformance.suites.inference_received import ReceivedChecks
from llamastack_conformance.suites.inference_received_edges import ReceivedEdgeChecks
from llamastack_conformance.suites.inference_received_features import ReceivedFeatureChecks
from llamastack_conformance.suites.inference_replays import ReplayChecks
from llamastack_conformance.suites.inference_replies import ReplyChecks
from llamastack_conformance.suites.inference_splits import SplitChecks
from llamastack_conformance.suites.inference_statuses import StatusChecks
from llamastack_conformance.suites.inference_streams import StreamChecks
from llamastack_conformance.suites.inference_texts import TextChecks
from llamastack_conformance.suites.inference_tool_calls import ToolCallChecks
from llamastack_conformance.suites.inference_usage import UsageChecks
from llamastack_conformance.suites.inference_vectors import VectorChecks
from llamastack_conformance.suites.inference_wholes import WholeChecks


class InferenceConformance(
    StatusChecks,
    OverlapChecks,
    ReceivedChecks,
    ReceivedEdgeChecks,
    LeftStreamChecks,
    ReceivedFeatureChecks,
    SplitChecks,
    ReplayChecks,
    TextChecks,
    PromptChecks,
    LogprobChecks,
    WholeChecks,
    VectorChecks,
    UsageChecks,
    ModelChecks,
    ToolCallChecks,
    FeatureChecks,
    StreamChecks,
    ReplyChecks,
):
    """All checks of an inference provider. Source of the shapes: `llamastack.api.inference`."""
