"""The parts of a local system as processes: started, watched and stopped."""
