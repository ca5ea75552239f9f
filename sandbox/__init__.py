"""Simulated servers for Discord and Pikzels, to try and test the bot without an account, a key or costs."""
