"""What the tests of the core and of every plugin share."""

pytest_plugins = ["backends.fixtures", "pytester"]
