"""The command `turnout explain`."""
