"""Child processes, crash records and load proofs: a bad version harms only itself."""
