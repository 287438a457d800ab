"""Rules about the code itself. CONTRIBUTING.md says what each means and how to mend a breach."""
