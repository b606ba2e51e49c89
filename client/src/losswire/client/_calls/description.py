"""What a server is and which losses it has, asked for once by each client."""

from collections.abc import Mapping

from losswire.client._calls.operations import Steps, get_server_info, list_losses
from losswire.client._calls.session import Session
from losswire.client._messages.catalogue import LossInfo, ServerInfo


def describe_server(session: Session) -> Steps[tuple[ServerInfo, Mapping[str, LossInfo]]]:
    """Return the descriptions that a session keeps, after asking for those it does not have."""
    server, losses = session.server, session.losses
    if server is None:
        server = session.server = yield get_server_info()
    if losses is None:
        listed = yield list_losses()
        losses = session.losses = {each.name: each for each in listed}
    return server, losses
