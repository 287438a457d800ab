"""The processes of a local system: how they are started, watched and stopped."""
