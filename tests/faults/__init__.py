"""The fault programme: everything that tries to break the promises."""
