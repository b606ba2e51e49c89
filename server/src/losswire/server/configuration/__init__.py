"""Where the settings of a server come from: the command line, the environment and a file."""
