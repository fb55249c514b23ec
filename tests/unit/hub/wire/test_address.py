import pytest

from hub.wire.address import is_loopback


@pytest.mark.parametrize("url", ["http://127.0.0.1:8790", "https://[::1]", "ws://localhost/ws", "http://a.localhost"])
def test_this_machine_is_loopback(url):
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "http://localhost.example.org", "http://0.0.0.0", "http://[bad", "", "127.0.0.1"]
)
def test_nothing_else_is(url):
    assert not is_loopback(url)
