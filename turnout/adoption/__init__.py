"""`turnout adopt`: a model of another tool becomes a version."""
