"""The online store: rows read while a call waits, the store's address and its process."""
