"""How bytes become calls, and errors statuses: the gRPC services and the lease socket."""
