"""One day's work of monitoring for many models: its time, its processor time and its memory."""
