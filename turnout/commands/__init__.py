"""One file a command group; each command asks, prints and leaves."""
