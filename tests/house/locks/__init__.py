"""What the lock files name, and what is known about it."""
