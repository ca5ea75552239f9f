"""Thin adapters between Discord's commands and the core: read the inputs, make one call, send one reply."""
