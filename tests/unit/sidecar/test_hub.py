"""Why a hub does not answer, in words that say what to do; and where one is."""

from __future__ import annotations

import socket
import ssl

import httpx2
import pytest

from hub.wire.address import is_loopback
from sidecar.hub import Refusal, explain, http_url, socket_url


def wrapped(cause: BaseException) -> BaseException:
    """As the library hands it on: the cause of a cause."""
    outer = httpx2.ConnectError(str(cause))
    middle = OSError("All connection attempts failed")
    middle.__context__ = cause
    outer.__cause__ = middle
    return outer


def untrusted() -> ssl.SSLCertVerificationError:
    fault = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    fault.verify_message = "self-signed certificate"
    return fault


@pytest.mark.parametrize(
    ("cause", "words", "cure"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name hub.example has no address", "DNS"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens at hub.example:8790", "start the hub"),
        (untrusted(), "not trusted: self-signed certificate", "SSL_CERT_FILE"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "does not speak TLS", "http://"),
        (ConnectionResetError(104, "reset"), "closed the connection", "https://"),
        (httpx2.ConnectTimeout("timed out"), "no answer from hub.example:8790", "firewall"),
        (OSError(113, "No route to host"), "No route to host", "network"),
    ],
)
def test_the_cause_is_told_precisely(cause: BaseException, words: str, cure: str) -> None:
    fault = explain("https://hub.example:8790", wrapped(cause))
    assert words in str(fault)
    assert cure in fault.cure


def test_a_cause_nobody_foresaw_is_told_by_its_name() -> None:
    assert "ReadError: half an answer" in str(explain("http://h", httpx2.ReadError("half an answer")))
    assert "h:80 " in str(explain("http://h", httpx2.ReadError("x")))
    assert "h:443 " in str(explain("https://h", httpx2.ReadError("x")))


@pytest.mark.parametrize("url", ["http://h:1", "ws://h:1/ws", "http://h:1/", "http://h:1/ws"])
def test_both_addresses_of_a_hub_are_one(url: str) -> None:
    assert http_url(url) == "http://h:1"
    assert socket_url(url) == "ws://h:1/ws"


def test_only_this_machine_is_loopback() -> None:
    assert all(is_loopback(f"http://{host}:1") for host in ("127.0.0.1", "127.9.9.9", "[::1]", "localhost", "a.localhost"))
    assert not any(is_loopback(f"http://{host}:1") for host in ("10.0.0.1", "0.0.0.0", "localhost.example.org", "h"))


def test_a_refusal_is_read_whatever_stands_in_it() -> None:
    assert Refusal(500, {}).code == "http_500"
    odd = Refusal(409, {"code": "name_taken", "detail": "no", "errors": [{"msg": "a"}, "nonsense", None]})
    assert (odd.code, str(odd), odd.errors) == ("name_taken", "no", [{"msg": "a"}])
