"""What every command shares: its context, its clients, its errors and exit codes."""
