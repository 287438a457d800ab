"""One call in, one reply out; and the processes around it."""
