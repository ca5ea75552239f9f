"""The fault tests, which try to break the rules in CONTRIBUTING.md."""
