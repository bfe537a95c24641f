"""TLS and proxies, a server with a certificate of its own, and a proxy that others wrote."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distgen.backends.generate import Batch
from distgen.backends.server import Retry, chat, completions
from tests.support.servers import Act, Server, response, serving, text_body

trustme = pytest.importorskip("trustme", reason="needs trustme and proxy.py: pip install trustme proxy.py")
pytestmark = pytest.mark.slow
KEY = "sk-abcdef/0123456789"
SECRET = "pass word:1"  # as a URL it has to be quoted
OK = Act(response(200, text_body("ok", tokens=None)))
DONE = "Completion(text='ok', finish_reason='stop', usage=None"


def ask(url: str, proxy: str = "") -> str:
    """What the backend answers, as text."""
    backend = completions(url, model="tiny", api_key=KEY, retry=Retry(attempts=1), timeout=10, proxy=proxy or None)

    async def asked() -> Batch:
        return await backend(["a"], 1)

    return repr(asyncio.run(asked()))


def ask_trusting(certificates: Path, url: str, proxy: str = "") -> str:
    """The same in a process of its own, since certificates are read once in a process."""
    program = "import sys; from tests.backends.test_proxies import ask; print(ask(*sys.argv[1:]))"
    environment = {**os.environ, "SSL_CERT_FILE": str(certificates)}
    return subprocess.check_output([sys.executable, "-c", program, url, proxy], text=True, env=environment)


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of an authority, and of a server at 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder / "authority.pem", folder / "server.pem"


@pytest.fixture(scope="module")
def secure(certificates: tuple[Path, Path]) -> Generator[Server]:
    with serving(certificate=str(certificates[1])) as server:
        yield server


@contextmanager
def proxied(folder: Path, *options: str) -> Generator[str]:
    """The address of a proxy of the package proxy.py."""
    port = folder / "port"
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--log-level", "e", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not (port.exists() and port.read_text()):
                assert process.poll() is None
                time.sleep(0.02)
            yield f"127.0.0.1:{port.read_text().strip()}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with proxied(tmp_path_factory.mktemp("proxy"), "--basic-auth", f"user:{SECRET}") as address:
        yield address


def test_a_certificate_of_one_s_own_is_trusted_where_the_environment_names_it(
    secure: Server, certificates: tuple[Path, Path]
) -> None:
    secure.script(OK)
    url = secure.url.replace("http:", "https:")
    assert DONE in ask_trusting(certificates[0], url)
    refused = ask(url)
    assert "'connection'" in refused
    assert "certificate verify failed" in refused
    assert len(secure.seen()) == 1


def test_a_proxy_is_told_the_whole_address(server: Server) -> None:
    """The server stands for the proxy here, so that what a proxy sees is seen."""
    server.script(OK)
    assert DONE in ask("http://nowhere.invalid/v1", server.url.removesuffix("/v1"))
    (seen,) = server.seen()
    assert seen.path == "http://nowhere.invalid/v1/completions"
    assert seen.headers["host"] == "nowhere.invalid"


def test_a_proxy_that_wants_a_password_gets_it_and_the_server_does_not(server: Server, proxy: str) -> None:
    server.script(OK)
    assert DONE in ask(server.url, f"http://user:pass%20word%3A1@{proxy}")
    (seen,) = server.seen()
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert "proxy-authorization" not in seen.headers


def test_tls_goes_through_a_proxy(secure: Server, certificates: tuple[Path, Path], proxy: str) -> None:
    secure.script(OK)
    url = secure.url.replace("http:", "https:")
    assert DONE in ask_trusting(certificates[0], url, f"http://user:pass%20word%3A1@{proxy}")
    (seen,) = secure.seen()
    assert "proxy-authorization" not in seen.headers


def test_a_proxy_that_refuses_is_a_reason(server: Server, secure: Server, proxy: str) -> None:
    for url in (server.url, secure.url.replace("http:", "https:")):
        refused = ask(url, f"http://user:{SECRET[::-1].replace(' ', '%20').replace(':', '%3A')}@{proxy}")
        assert "407" in refused
        assert "drow" not in refused


def test_a_proxy_that_is_not_there_is_a_reason(server: Server) -> None:
    server.script()
    gone = ask(server.url, "http://user:pass@127.0.0.1:1")
    assert "'connection'" in gone
    assert "pass" not in gone
    assert server.seen() == []


@pytest.mark.parametrize("make", [chat, completions])
@pytest.mark.parametrize("proxy", ["", "127.0.0.1:3128", "socks5://127.0.0.1:1080"])
def test_a_proxy_is_a_url_of_http(make: Callable[..., object], proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be a URL that begins with http"):
        make("http://127.0.0.1/v1", model="tiny", proxy=proxy)


def test_a_password_is_in_no_repr() -> None:
    backend = chat("http://127.0.0.1/v1", model="tiny", proxy="http://user:secret@127.0.0.1:3128")
    assert "secret" not in repr(backend)
