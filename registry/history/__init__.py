"""The history: its chain of digests, the replay into the rows of tables, the audit of both."""
