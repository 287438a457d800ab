"""Help with this machine that every room may use: files, processes, retries and the time."""
