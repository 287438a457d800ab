"""gRPC's own interoperability cases: a test service behind our servers, clients in two
languages.
"""
