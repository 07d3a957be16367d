"""Backends for the tests of remote providers: a real server, stand-ins over it, a proxy that breaks connections."""
