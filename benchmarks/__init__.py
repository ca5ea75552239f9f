"""Measurements of the bot, beside a bare discord.py bot on the same simulated servers."""
