"""What a call may say of itself in its metadata."""

from typing import Final

LARGE_MESSAGE: Final = ("losswire-message", "large")
"""Of a call whose message is large: under pressure the server lets it wait before it comes. Without
it, such a message is refused sooner, for the sake of the small ones behind it."""
