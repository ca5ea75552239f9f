"""Renders the thumbnails that the stand-in returns."""
