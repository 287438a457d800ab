"""Child processes, breadcrumbs and load proofs, so that a bad version harms only itself."""
