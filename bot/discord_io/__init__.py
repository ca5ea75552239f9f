"""Everything that talks to Discord, except the commands themselves."""
