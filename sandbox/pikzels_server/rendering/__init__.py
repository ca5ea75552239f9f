"""Renders the thumbnails the stand-in returns."""
