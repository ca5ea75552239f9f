"""Unit tests without I/O."""
