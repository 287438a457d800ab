"""The reader of a gateway host's journal: it counts records and pushes the counts."""
