"""Long runs: soak, memory and overload."""
