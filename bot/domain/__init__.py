"""The rules and the nouns: no I/O, no clock of its own."""
