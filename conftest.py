"""What the tests of the core and of every plugin share."""

from hypothesis import settings

pytest_plugins = ["stack_fixtures", "backends.fixtures", "pytester"]

# How long one example takes says something of the machine, not of what is tested; and each run tries the same ones.
settings.register_profile("llamastack", deadline=None, derandomize=True)
settings.load_profile("llamastack")
