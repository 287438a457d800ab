"""The server interface, its two implementations, and their admission and decoding."""
