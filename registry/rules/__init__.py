"""Rules of the registry without I/O: the gates of a deployment and the status of a version."""
