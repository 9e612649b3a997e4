"""The login by a service account of Kubernetes, on a real Vault that asks a small API server about each token."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from mtls import Authority
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.faults import VaultDenied
from stepgrant_broker.wiring.vault import vault_of
from vaulted import unique

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

SELF: Final = "auth/token/lookup-self"
REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
REVIEWER: Final = "the-token-by-which-vault-asks"
UID: Final = "5a3c0f1e-0000-4000-8000-000000000003"


class Cluster:
    """What an API server knows of its service accounts' tokens. `deleted`: subjects that are gone."""

    def __init__(self) -> None:
        self.key = generate_private_key(SECP256R1())
        self.deleted: set[str] = set()
        self.reviewed: list[tuple[str, str | None, dict[str, Any]]] = []
        self.url = self.ca = ""

    def token(
        self, name: str = "broker", *, key: EllipticCurvePrivateKey | None = None, audience: str = "vault"
    ) -> str:
        """A projected token as the kubelet puts it into a pod."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc.cluster.local", "sub": f"system:serviceaccount:stepgrant:{name}",
            "aud": [audience], "iat": now, "nbf": now, "exp": now + 3600,
            "kubernetes.io": {"namespace": "stepgrant", "serviceaccount": {"name": name, "uid": UID}},
        }  # fmt: skip
        return jwt.encode(claims, key or self.key, algorithm="ES256")

    def review(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The status of a TokenReview."""
        try:
            said = jwt.decode(
                asked["token"], self.key.public_key(), algorithms=["ES256"], audience=asked["audiences"]
            )  # fmt: skip
        except jwt.InvalidTokenError:
            return {"authenticated": False, "error": "invalid bearer token"}
        if said["sub"] in self.deleted:
            return {"authenticated": False, "error": "service account has been deleted"}
        return {"authenticated": True, "user": {"username": said["sub"], "uid": UID}, "audiences": said["aud"]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made, authority = Cluster(), Authority("CA of the cluster")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.reviewed.append((self.path, self.headers["authorization"], asked["spec"]))
            answer = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "status": made.review(asked["spec"]),
            }
            text = json.dumps(answer).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # The handshake is done at the first read, in the connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made.url, made.ca = f"https://127.0.0.1:{server.server_port}", authority.pem
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def mount(vault_server: VaultServer, cluster: Cluster) -> Iterator[str]:
    """The method, with a role for one service account."""
    path = unique("kubernetes")
    vault_server.request("POST", f"sys/auth/{path}", {"type": "kubernetes"})
    vault_server.request("POST", f"auth/{path}/config", {
        "kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.ca, "token_reviewer_jwt": REVIEWER,
        "disable_local_ca_jwt": True,
    })  # fmt: skip
    vault_server.request("POST", f"auth/{path}/role/broker", {
        "bound_service_account_names": ["broker"], "bound_service_account_namespaces": ["stepgrant"],
        "audience": "vault", "token_ttl": "60s",
    })  # fmt: skip
    yield path
    vault_server.request("DELETE", f"sys/auth/{path}")


@asynccontextmanager
async def session(server: VaultServer, mount: str, folder: Path, token: str) -> AsyncIterator[Vault]:
    """As a broker in a pod with this token is set up."""
    held = folder / "token"
    held.write_text(token)
    vault = vault_of(
        explicit_settings(
            vault_addr=server.addr, vault_auth="kubernetes", vault_auth_mount=mount, vault_role="broker",
            vault_jwt_file=held,
        )
    )  # fmt: skip
    try:
        yield vault
    finally:
        await vault.close()


async def refused(server: VaultServer, mount: str, folder: Path, token: str) -> str:
    """Vault's own words for it; ours name mount, role and file, and not the token."""
    async with session(server, mount, folder, token) as vault:
        with pytest.raises(VaultDenied, match=f"refused the login at auth/{mount} with role broker") as caught:
            await vault.request("GET", SELF)
        assert vault.login.logins == 0
        assert str(folder / "token") in str(caught.value)
        assert token not in f"{caught.value} {caught.value.said}"
        return caught.value.said


async def test_a_service_account_logs_in(
    vault_server: VaultServer, mount: str, cluster: Cluster, tmp_path: Path
) -> None:
    token = cluster.token()
    async with session(vault_server, mount, tmp_path, token) as vault:
        who = (await vault.request("GET", SELF))["data"]
    assert (who["display_name"], who["meta"]["service_account_name"]) == (f"{mount}-stepgrant-broker", "broker")
    assert cluster.reviewed == [(REVIEWS, f"Bearer {REVIEWER}", {"token": token, "audiences": ["vault"]})]


async def test_another_service_account_is_refused(
    vault_server: VaultServer, mount: str, cluster: Cluster, tmp_path: Path
) -> None:
    said = await refused(vault_server, mount, tmp_path, cluster.token("somebody"))
    assert "service account name not authorized" in said


async def test_a_token_for_another_audience_is_refused(
    vault_server: VaultServer, mount: str, cluster: Cluster, tmp_path: Path
) -> None:
    said = await refused(vault_server, mount, tmp_path, cluster.token(audience="https://other.example"))
    assert "audience" in said


async def test_a_token_that_the_cluster_does_not_vouch_for_is_refused(
    vault_server: VaultServer, mount: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Forged with a key of somebody else, and one whose service account was deleted: only the cluster knows it."""
    good = cluster.token()
    for token, why in ((cluster.token(key=generate_private_key(SECP256R1())), "invalid"), (good, "deleted")):
        cluster.deleted = {"system:serviceaccount:stepgrant:broker"}
        assert why in cluster.review({"token": token, "audiences": ["vault"]})["error"]
        assert "permission denied" in await refused(vault_server, mount, tmp_path, token)
        assert cluster.reviewed[-1][2]["token"] == token
    cluster.deleted.clear()
    async with session(vault_server, mount, tmp_path, good) as vault:
        await vault.request("GET", SELF)
