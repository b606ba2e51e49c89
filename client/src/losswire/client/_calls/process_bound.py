"""What belongs to its process, because it holds connections or memory of it."""

from typing import NoReturn


class ProcessBound:
    """Refuses to be pickled and copied."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Raise TypeError, instead of naming some part that cannot be pickled."""
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: its connections are this "
            "process's; make a client in each process"
        )
