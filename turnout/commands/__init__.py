"""The commands of `turnout`: one module for each command or group of commands."""
