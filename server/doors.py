"""Where a server listens and how: the rules of which address takes keys and TLS, and the certificates."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from policy.domain import InvalidFieldError

if TYPE_CHECKING:  # So that a command which only connects does not load the database's library.
    from server.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Doors:
    """Reads the certificates. Raises InvalidFieldError naming the setting and the file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificates = _certificates(settings)

    def require_locked(self, locked: bool) -> None:
        """Raises InvalidFieldError for an address that other machines reach, without keys or in the clear.

        `locked` says whether there are keys.
        """
        self._require_locked("host", self._settings.host, locked)
        if self._settings.http_port is not None:
            self._require_locked("http_host", self._settings.http_host, locked)

    def _require_locked(self, setting: str, host: str, locked: bool) -> None:
        given = self._settings
        if is_loopback(host):
            return
        if not locked and not given.insecure:
            raise InvalidFieldError(
                _variable(setting),
                f"{host} is not loopback, and there are no keys: create one (pointsman keys create), listen "
                "on 127.0.0.1, or set POINTSMAN_INSECURE=true to serve everyone who reaches it",
            )
        if locked and self._certificates is None and not given.tls_ends_elsewhere:
            raise InvalidFieldError(
                _variable(setting),
                f"{host} is not loopback, and without TLS keys could be read on their way: set "
                "POINTSMAN_TLS_CERTIFICATE and POINTSMAN_TLS_KEY, or POINTSMAN_TLS_ENDS_ELSEWHERE=true if a proxy "
                "in front has the TLS",
            )

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """The port that the server now listens on. Raises RuntimeError if it cannot."""
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    def http_context(self) -> ssl.SSLContext | None:
        """What HTTP is encrypted with, by the same certificates; None in the clear."""
        # Certificates of its own, since each says once that the files have changed.
        certificates = _certificates(self._settings)
        return None if certificates is None else certificates.context()

    def tell(self, locked: bool) -> None:
        """Says in the log who is served where there are no keys."""
        if locked:
            return
        hosts = [self._settings.host, *([] if self._settings.http_port is None else [self._settings.http_host])]
        outside = [host for host in dict.fromkeys(hosts) if not is_loopback(host)]
        if outside:
            logger.warning("there are no keys: everyone who reaches %s may use it", " and ".join(outside))
        else:
            logger.info("there are no keys: serving this machine only, on loopback, whoever asks")


class Certificates:
    """The server's certificate and the authorities of its clients, read again when their files change."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = [("tls_certificate", certificate), ("tls_key", key)]
        if client_ca is not None:
            self._files.append(("tls_client_ca", client_ca))
        self._stamps = self._stamp()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """With client authorities, clients must show a certificate of theirs."""
        return grpc.dynamic_ssl_server_credentials(
            self._first, self._newest, require_client_authentication=len(self._files) == 3
        )

    def context(self) -> ssl.SSLContext:
        """The same for what is served by Python's own TLS. Raises InvalidFieldError."""
        newest = self._context()

        def at_handshake(connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
            nonlocal newest
            newest = self._if_changed(self._context) or newest
            connection.context = newest

        listening = self._context()
        listening.sni_callback = at_handshake
        return listening

    def _newest(self) -> Any:
        """At each handshake; None if all is as it was."""
        return self._if_changed(self._read)

    def _if_changed(self, read: Callable[[], T]) -> T | None:
        """What is read of the files if they have changed; None if not.

        Files that are not right, half written perhaps, are left until they change again.
        """
        try:
            stamps = self._stamp()
            if stamps != self._stamps:
                self._stamps = stamps
                found = read()
                logger.info("certificates were read again")
                return found
        except (OSError, InvalidFieldError) as error:
            logger.error("certificates stay what they were: %s", error)
        return None

    def _context(self) -> ssl.SSLContext:
        (_, certificate), (_, key), *rest = self._files
        self._read()
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.set_alpn_protocols(["http/1.1"])
        made.load_cert_chain(certificate, key, password="")
        for _, client_ca in rest:
            made.verify_mode = ssl.CERT_REQUIRED
            made.load_verify_locations(client_ca)
        return made

    def _stamp(self) -> list[tuple[int, int]]:
        return [(each.stat().st_mtime_ns, each.stat().st_size) for _, each in self._files if each.exists()]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *rest = [_pem(setting, path) for setting, path in self._files]
        _require_pair(self._files[0][1], self._files[1][1])
        client_ca = rest[0] if rest else None
        if client_ca is not None:
            _require_authorities(self._files[2][1], client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_certificate is not None and settings.tls_key is not None:
        return Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        if getattr(settings, name) is not None:
            missing = "tls_key" if name == "tls_certificate" else "tls_certificate"
            raise _refused(name, getattr(settings, name), f"is of no use without {_variable(missing)}")
    return None


def _pem(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(setting, path, f"cannot be read: {error.strerror}") from error


def _require_pair(certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key behind a password would otherwise ask for it on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise _refused("tls_key", key, f"is not the key of {certificate}") from error
        culprit = ("tls_key", key) if _is_certificate(certificate) else ("tls_certificate", certificate)
        raise _refused(*culprit, "is not what it should be in PEM, or needs a password") from error


def _is_certificate(path: Path) -> bool:
    try:
        _require_authorities(path, path.read_bytes())
    except (OSError, InvalidFieldError):
        return False
    return True


def _require_authorities(path: Path, pem: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise _refused("tls_client_ca", path, "holds no certificate in PEM") from error


def _refused(setting: str, path: Path, message: str) -> InvalidFieldError:
    return InvalidFieldError(_variable(setting), f"{path} {message}")


def _variable(setting: str) -> str:
    return f"POINTSMAN_{setting.upper()}"
