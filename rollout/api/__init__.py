"""The gRPC services of the controller: commands, status and the window sink."""
