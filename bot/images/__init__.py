"""Fetching, inspecting and keeping images."""
