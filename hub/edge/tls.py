"""The hub's certificate: read and judged before anything listens, so that a wrong one is a message and never a broken handshake."""

from __future__ import annotations

import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from hub.core.errors import HubError


class TlsUnusable(HubError):
    """Certificate and key cannot serve; each of ``faults`` names its cure."""

    code = "tls_unusable"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("TLS cannot be served: " + "; ".join(faults))
        self.faults = faults


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A context for TLS 1.2 and later that speaks HTTP/1.1; raises :class:`TlsUnusable` with all faults."""
    faults = [*_unreadable("tls_cert", cert), *_unreadable("tls_key", key)]
    if not any(fault.startswith("tls_key") for fault in faults):
        faults += _exposed(key)
    if faults:
        raise TlsUnusable(faults)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _Encrypted:
        raise TlsUnusable(
            [f"tls_key: {key} is encrypted, and a service cannot be asked; decrypt it: openssl pkey -in {key} -out …"]
        ) from None
    except ssl.SSLError as fault:
        raise TlsUnusable([_words(fault, cert, key)]) from fault
    return context


def ends_at(context: ssl.SSLContext, cert: Path) -> datetime:
    """When a certificate ends, learnt as a client learns it: by a handshake, in memory, that trusts ``cert`` itself.

    Raises :class:`TlsUnusable` if such a client would refuse it, as it does once it has ended.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = context.wrap_bio(there, back, server_side=True), trusting.wrap_bio(back, there)
    try:
        for side in (client, server, client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as fault:
        raise TlsUnusable([f"tls_cert: {cert}: {fault.verify_message}; renew it, and start the hub again"]) from fault
    peer = client.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(peer["notAfter"])), UTC)


class _Encrypted(Exception):
    pass


def _refuse_password() -> str:
    raise _Encrypted


def _unreadable(name: str, path: Path) -> list[str]:
    try:
        with path.open("rb"):
            return []
    except OSError as fault:
        return [f"{name}: {path} cannot be read: {fault.strerror}"]


def _exposed(key: Path) -> list[str]:
    """PostgreSQL's rule: the owner alone may read a key; if that is root, a group may, too."""
    found = key.stat()
    allowed = 0o640 if found.st_uid == 0 else 0o600
    if stat.S_IMODE(found.st_mode) & ~allowed & 0o077:
        return [f"tls_key: others can read {key}; run: chmod {allowed:o} {key}"]
    return []


def _words(fault: ssl.SSLError, cert: Path, key: Path) -> str:
    if fault.reason == "KEY_VALUES_MISMATCH":
        return f"tls_key: {key} is not the key of the certificate {cert}; name those that were made together"
    if fault.reason in {"PEM_LIB", "NO_START_LINE", "BAD_END_LINE", "BAD_BASE64_DECODE"}:
        return (
            f"tls_cert, tls_key: {cert} or {key} is not in PEM form (text that begins with -----BEGIN); convert it with openssl"
        )
    return f"tls_cert, tls_key: {fault.reason or fault}"
