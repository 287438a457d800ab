"""`turnout demo`: runs all parts of the system on real data and measures them."""
