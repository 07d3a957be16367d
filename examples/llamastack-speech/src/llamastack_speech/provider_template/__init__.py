"""A beep for each word.

The files are those of a variant of `llamastack-provider-template`.
"""
