"""The run config `starter`: everything on this machine, nothing to sign up for."""

from importlib.resources import files

RUN_CONFIG = files("llamastack_starter").joinpath("run.yaml")
