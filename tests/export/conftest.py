"""The network that every way out is tried with."""

from tests.export.networks import network

__all__ = ["network"]
