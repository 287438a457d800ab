"""Statistics: sequential tests (e-processes), latency bins, comparisons of histograms.

Everything here is pure: no input or output, no clock, no protobuf messages.
"""
