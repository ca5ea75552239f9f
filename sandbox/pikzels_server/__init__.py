"""A stand-in for the Pikzels API on loopback."""

from sandbox.pikzels_server.server import StandIn, serve

__all__ = ["StandIn", "serve"]
