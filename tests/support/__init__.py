"""Helpers shared by the tests; no test is in here."""
