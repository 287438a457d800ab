"""From a source to stored rows: reads a table in bounded memory, checks it and encodes it."""
