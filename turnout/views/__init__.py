"""What the commands print: tables, JSON values and pictures."""
