"""The generated messages and services of the contract `losswire.v1`."""
