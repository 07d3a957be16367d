"""The APIs of a llamastack server over HTTP."""

from llamastack.client.client import LlamaStackClient

__all__ = ["LlamaStackClient"]
