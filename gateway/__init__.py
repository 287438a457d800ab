"""One call in, one reply out: ingress, admit, route, look up, score, reply; then count and log."""
