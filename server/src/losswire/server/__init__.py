"""The service: losses and exact gradients over gRPC, computed by torch."""
