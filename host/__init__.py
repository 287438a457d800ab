"""Help with this machine that every room may use: files, processes, retries, time, safe text."""
