"""What the bot promises, one file per room of the house."""
