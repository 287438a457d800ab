"""A folder a room, plus house/ (rules a machine keeps) and walks/ (the whole of it, running)."""
