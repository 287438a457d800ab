"""The command that removes a person's rows, and its receipt."""
