"""The client of the Pikzels API."""
