"""A Kubernetes without nodes: etcd, API server and controller manager as processes on one address."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.certificates import Authority, Certificate
from tests.cluster.etcd import Etcd
from tests.cluster.programs import Program
from tests.ports import free_port

START_SECONDS_MAX = 120.0
ANSWER_SECONDS_MAX = 5.0
KUBECTL_SECONDS_MAX = 120.0
BUSY_SECONDS_MAX = 30.0
SERVICE_ADDRESSES = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
"""Where pods find the API server."""
ISSUER = "https://kubernetes.default.svc.cluster.local"
API_SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    ISSUER.removeprefix("https://"),
)
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""The audit policy: it records the requests of test accounts, and the answers to them."""


class Refused(Exception):
    """Raised when the API server refuses what was read; the message is what it said."""


class KubectlFailed(Refused):
    """Raised when kubectl ends with an error; the message is what it wrote."""


class ControlPlane:
    """One control plane, raised on entering and gone on leaving. `programs` is the folder of the programs;
    `folder` is an empty folder for all that this cluster writes.

    The programs end with the thread that starts them, so start them in one that stays.
    """

    def __init__(self, programs: Path, folder: Path, address: str = "127.0.0.1") -> None:
        self.programs = programs
        self.folder = folder
        self.address = address
        self.authority = Authority(folder / "certificates")
        self._audit = folder / "audit.log"
        self.port, etcd_port, peer_port = (free_port(address) for _ in range(3))
        self.url = f"https://{address}:{self.port}"
        self.etcd = Etcd(f"http://{address}:{etcd_port}")
        self._admin = self.authority.issue("admin", "admin", organization="system:masters")
        self.kubeconfig = self.certificate_kubeconfig("admin", self._admin)
        """The administrator's."""
        self._reader = self._client()
        self._token_keys = self.authority.key_pair("tokens")
        self._etcd = self._program("etcd", *self._etcd_flags(f"http://{address}:{peer_port}"))
        self._api_server = self._program("kube-apiserver", *self._api_server_flags())
        self._controller_manager = self._program("kube-controller-manager", *self._controller_manager_flags())
        self.processes = (self._controller_manager, self._api_server, self._etcd)
        """Every program, in the order in which they end."""

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when the API server and the controllers do their work; raises StartFailed."""
        self._etcd.start()
        self._etcd.wait_until(self.etcd.healthy, START_SECONDS_MAX)
        self.start_api_server()
        self._controller_manager.start()
        # Made by a controller. One that still starts while the API server is away would end itself.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        with self._client() as client:
            self._controller_manager.wait_until(lambda: _answers(client, account), START_SECONDS_MAX)

    def stop(self) -> None:
        """End every program. Nothing here is worth a slow goodbye."""
        for program in self.processes:
            program.kill()
        self._reader.close()

    def kill_api_server(self) -> None:
        """SIGKILL: its port refuses connections until it is started again."""
        self._api_server.kill()

    def start_api_server(self) -> None:
        """Start it on its port and its etcd, and return when it is ready; raises StartFailed."""
        self._api_server.start()
        with self._client() as client:
            self._api_server.wait_until(lambda: _answers(client, "/readyz"), START_SECONDS_MAX)

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Kill the API server, and start it again on leaving, whatever happened: other tests need it."""
        self.kill_api_server()
        try:
            yield
        finally:
            self.start_api_server()

    def forget_history(self) -> int:
        """Make every older resourceVersion too old (410 Gone); returns the oldest one that is still good.

        The API server answers watches from its memory as far as that reaches back, so it is killed, too, and
        started again.
        """
        with self.without_api_server():
            return self.etcd.compact()

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Return the output of kubectl as the administrator; `input` is for `-f -`. Raise KubectlFailed."""
        done = subprocess.run(
            [self.programs / "kubectl", *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=KUBECTL_SECONDS_MAX,
            env=os.environ | self.environment,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def read(self, path: str, **query: str) -> dict[str, Any]:
        """Send a GET as the administrator, for callers that poll: it starts no process.

        Like kubectl, repeat the request while the API server is too busy. Raise Refused for any other status.
        """
        ends = time.monotonic() + BUSY_SECONDS_MAX
        while (answer := self._reader.get(path, params=query)).status_code == httpx.codes.TOO_MANY_REQUESTS:
            if time.monotonic() > ends:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"{path}: {answer.status_code}: {answer.text}")
        document: dict[str, Any] = answer.json()
        return document

    @property
    def environment(self) -> dict[str, str]:
        """The environment of kubectl and of every other program that reads KUBECONFIG."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            # What the last cluster on this port had, and what its owner likes, is nothing to this one.
            "KUBECACHEDIR": str(self.folder / "kubectl"),
            "KUBERC": "off",
        }

    def token(self, namespace: str, account: str) -> str:
        """A token of a ServiceAccount, good for an hour."""
        return self.kubectl("create", "token", account, "--namespace", namespace).strip()

    def account_kubeconfig(self, namespace: str, account: str) -> Path:
        """A kubeconfig with a new token of a ServiceAccount, and its namespace as the default."""
        user = {"token": self.token(namespace, account)}
        return self._kubeconfig(f"{namespace}.{account}", user, namespace)

    def asked(self, namespace: str, account: str) -> list[dict[str, Any]]:
        """The last audit event of each request of a ServiceAccount: of a watch there are two."""
        user = f"system:serviceaccount:{namespace}:{account}"
        events = map(json.loads, self._audit.read_text().splitlines())
        return list({e["auditID"]: e for e in events if e["user"]["username"] == user}.values())

    def certificate_kubeconfig(self, name: str, certificate: Certificate) -> Path:
        """Write a kubeconfig for the user that the certificate names."""
        user = {"client-certificate": str(certificate.certificate), "client-key": str(certificate.key)}
        return self._kubeconfig(name, user, "default")

    def _kubeconfig(self, name: str, user: dict[str, str], namespace: str) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.authority.own.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}
            ],
            "current-context": "test",
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(content, indent=2))
        return path

    def _client(self) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.authority.own.certificate))
        trust.load_cert_chain(self._admin.certificate, self._admin.key)
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=ANSWER_SECONDS_MAX)

    def _program(self, name: str, *flags: str) -> Program:
        return Program([self.programs / name, *flags], self.folder / f"{name}.log")

    def _etcd_flags(self, peer_url: str) -> list[str]:
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self.etcd.url}",
            f"--advertise-client-urls={self.etcd.url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_flags(self) -> list[str]:
        names = [f"DNS:{name}" for name in API_SERVER_NAMES]
        addresses = [f"IP:{address}" for address in (self.address, FIRST_SERVICE_ADDRESS)]
        serving = self.authority.issue(
            "kube-apiserver", "kube-apiserver", alternative_names=[*names, *addresses]
        )
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        return [
            f"--etcd-servers={self.etcd.url}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self._audit}",
            # A test says when history goes, not the clock.
            "--etcd-compaction-interval=0",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            # No pod is there to find it, and a loopback address is refused as an endpoint.
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.authority.own.certificate}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-signing-key-file={self._token_keys.key}",
            f"--service-account-key-file={self._token_keys.certificate}",
        ]

    def _controller_manager_flags(self) -> list[str]:
        user = "system:kube-controller-manager"
        kubeconfig = self.certificate_kubeconfig(
            "kube-controller-manager", self.authority.issue("kube-controller-manager", user)
        )
        return [
            f"--kubeconfig={kubeconfig}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._token_keys.key}",
            f"--root-ca-file={self.authority.own.certificate}",
            # It makes an account for each controller before they start; 20 calls in a second are its default.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            # It is the only one, and a leader that cannot renew its lease would end itself.
            "--leader-elect=false",
            "--secure-port=0",
        ]


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False
