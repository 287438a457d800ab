"""What this machine gives every room: files, processes, pauses between tries, and the time."""
