"""The OpenAI-compatible surface, `/v1`: a second set of routes over the same APIs and the same providers.

Requests are validated here, and forwarded as they are to providers that offer it; for all others they are translated
into native calls and the native replies back, so that a provider needs to know nothing of this.

Format: https://platform.openai.com/docs/api-reference.
"""
