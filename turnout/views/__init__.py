"""Text and pictures that commands show to people."""
