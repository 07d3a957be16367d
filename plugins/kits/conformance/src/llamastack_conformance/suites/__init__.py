"""The suites: one class per API, made of checks that inherit from the same few groups."""
