"""The version of this package: MAJOR.MINOR of the protocol that it speaks, and a patch number of its own."""

__version__ = "1.0.0"
