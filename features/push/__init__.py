"""Push: rows that programs send over gRPC go offline and online in one call."""
