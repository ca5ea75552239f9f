"""The SQLite database and the journal beside it."""
