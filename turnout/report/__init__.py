"""The five measures of the whole operation, from the history."""
