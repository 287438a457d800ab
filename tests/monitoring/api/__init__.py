"""The services of monitoring on a real server."""
