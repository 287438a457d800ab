"""How fast rows get into the offline store and out of it, and in how much memory."""
