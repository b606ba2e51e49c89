"""What operators see of single calls: the log of calls, and reports of the load."""
