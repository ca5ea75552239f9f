"""The commands of the command line, one file each; `bot.__main__` says what their arguments are."""
