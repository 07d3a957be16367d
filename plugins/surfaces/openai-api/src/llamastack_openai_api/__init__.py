"""OpenAI's API at `/v1`: a second set of routes over the same APIs and providers.

A request is forwarded unchanged if the provider can do that. Otherwise it is validated and translated into a native
call, and the reply is translated back, so every provider serves `/v1` without code for it.

Format: https://platform.openai.com/docs/api-reference.
"""
