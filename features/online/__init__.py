"""The online store: its address, its process, and the reader that gateway workers use."""
