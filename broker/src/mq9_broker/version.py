"""The version of this package, as its metadata says."""

from importlib.metadata import version

__version__ = version("mq9-broker")
