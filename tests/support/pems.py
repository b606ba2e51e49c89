"""Files of certificates, and callers who use them."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from losswire.server.identity.authority import Authority
from tests.support.asked import SECONDS, Served


@dataclass(frozen=True)
class Pems:
    """A folder with the files of an authority."""

    folder: Path

    def of(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / f"{name}.pem")

    def data(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.folder / f"{name}.pem").read_bytes()

    @property
    def server(self) -> dict[str, str]:
        """The settings of a server with TLS."""
        return {"tls_cert": self.of("server"), "tls_key": self.of("server-key")}

    def channel(self, served: Served, *, with_client: bool = False) -> grpc.Channel:
        """Return a channel that trusts the authority."""
        pair = (self.data("client-key"), self.data("client")) if with_client else (None, None)
        return grpc.secure_channel(
            served.grpc, grpc.ssl_channel_credentials(self.data("ca"), *pair)
        )

    def client(self, address: str, *, with_client: bool = False) -> httpx.Client:
        """Return a client of HTTP that trusts the authority."""
        context = ssl.create_default_context(cafile=self.of("ca"))
        if with_client:
            context.load_cert_chain(self.of("client"), self.of("client-key"))
        return httpx.Client(base_url=f"https://{address}", verify=context, timeout=SECONDS)


def make_pems(folder: Path, tenant: str = "team") -> Pems:
    """Make an authority and what it issues."""
    folder.mkdir(exist_ok=True)
    authority = Authority.make()
    authority.write(folder)
    authority.issue_server(folder, ["losswire.example"])
    authority.issue_client(folder, tenant)
    return Pems(folder)
