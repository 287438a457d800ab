"""What the registry promises: nothing changes unseen, nobody decides alone."""
