"""Looks at versions in service by the day and by five minutes, and reports what they find."""
