"""The services of monitoring, in control or on a server of their own."""
