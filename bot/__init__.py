"""The core of the bot: a request becomes a job, a picture, a lasting attachment, and only then a charge."""

__version__ = "0.2.0"
