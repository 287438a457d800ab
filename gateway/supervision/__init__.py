"""The supervisor of a host: it starts, watches and replaces workers and answers no calls."""
