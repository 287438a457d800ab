"""What the commands share: the command context, clients of the system, exit codes."""
