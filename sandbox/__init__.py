"""A stand-in for Pikzels, to try the bot without a key or a bill."""
