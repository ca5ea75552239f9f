"""The numbered migrations of the SQLite schema."""
