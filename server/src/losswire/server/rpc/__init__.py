"""From bytes to calls, and from errors to statuses: the gRPC services and the lease socket."""
