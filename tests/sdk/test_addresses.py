"""Where keys and tokens may travel, and that whoever connects reads the address as who allowed it."""

import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrant import ConfigurationError
from stepgrant._http import headers_of, safe_url

PIECES = (
    "https", "http", "HTTP", "ftp", "://", ":/", "//", "/", "\\", "@", "#", "?", ":", "[", "]", "%", "%40", "%2f", ".",
    "..", "localhost", "LOCALHOST", "127.0.0.1", "127.1", "0x7f.1", "::1", "evil.example", "user", "80", "0", "99999",
    "\t", " ", "\n", "é", "。", "",
)  # fmt: skip


@pytest.mark.parametrize(
    "url",
    ["https://broker.example", "https://broker.example:8443/base", "http://127.0.0.1:7070", "http://[::1]:1/x",
     "http://localhost", "HTTP://LOCALHOST:80"],
)  # fmt: skip
def test_an_address_over_tls_or_on_this_machine_is_taken_as_it_is(url: str) -> None:
    assert safe_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://broker.example", "http://127.0.0.1@evil.example", "https://user:word@broker.example", "ftp://localhost",
     "localhost:7070", "https://", "", "http://127.0.0.1\\@evil.example", "http://local\thost", "https://broker.example\n",
     "https://bröker.example", "http://127.1", "https://broker.example:70000", "http://[::1", "http://localhost.evil.example",
     "http://0.0.0.0:1"],
)  # fmt: skip
def test_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        safe_url(url)


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_whoever_connects_reads_an_address_as_who_allowed_it(url: str) -> None:
    try:
        safe_url(url)
    except ConfigurationError:
        return
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL:
        return  # refused by who would connect
    assert not read.userinfo
    assert read.scheme == "https" or read.host in {"localhost", "127.0.0.1", "::1"}


def test_headers_that_stand_twice_are_joined_and_names_are_small() -> None:
    pairs = [(b"DPoP-Nonce", b"a"), (b"x", b"1"), (b"X", b"2")]
    assert headers_of(pairs) == {"dpop-nonce": "a", "x": "1, 2"}


def test_an_agent_starts_without_what_its_steps_do_not_need() -> None:
    code = (
        "import sys, stepgrant; stepgrant.tool(lambda n: n, name='t', effect='read'); stepgrant.run\n"
        "import stepgrant._client; stepgrant._client.Address.of('http://127.0.0.1:1')\n"
        "import stepgrant._keys; key = stepgrant._keys.SecretKey.generate(); key.public.verify(b'', key.sign(b''))\n"
        "unneeded = {'httpx', 'asyncio', 'ssl', 'jwt', 'cryptography.x509', 'rich', 'click', 'stepgrant.verify'}\n"
        "print(sorted(unneeded & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_grants_with_known_keys_starts_without_an_http_client() -> None:
    code = "import sys, stepgrant.verify; print(sorted({'httpx', 'rich', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
