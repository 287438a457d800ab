"""Pure numbers: latency edges, e-processes, bins. No I/O, no clock, no proto."""
