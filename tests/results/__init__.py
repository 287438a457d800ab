"""The table of results that some targets of make print."""
