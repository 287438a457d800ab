"""The services, commands and texts through which rollouts are used."""
