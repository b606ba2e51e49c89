"""The losses. Every module here is searched for records; see CONTRIBUTING.md."""
