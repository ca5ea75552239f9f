"""Real SQLite, real HTTP on loopback, and a simulated Discord."""
