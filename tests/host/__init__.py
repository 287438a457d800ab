"""Files, processes, retries and clocks, on the real disk and with real processes."""
