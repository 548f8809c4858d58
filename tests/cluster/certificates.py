"""The keys and certificates of one cluster, made by the command `openssl`, 3.0 or newer."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CURVE = "P-256"
DAYS = 30
"""How long a certificate is valid: longer than any cluster of a test lives."""


@dataclass(frozen=True)
class Certificate:
    """Two files in PEM: a certificate, and the key that belongs to it."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority, whose files lie in `folder` next to all that it issues."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.own = self._request(
            "authority", "/CN=vecstow-test-authority", "CA:TRUE", "keyCertSign,cRLSign", ()
        )

    def issue(
        self, name: str, common_name: str, *, organization: str = "", alternative_names: Sequence[str] = ()
    ) -> Certificate:
        """A certificate for a server and a client, in the files `name`.crt and `name`.key.

        To the API server `common_name` is a user and `organization` a group. `alternative_names` are written
        as OpenSSL does: `DNS:localhost`, `IP:127.0.0.1`.
        """
        subject = f"/O={organization}/CN={common_name}" if organization else f"/CN={common_name}"
        extensions = ["extendedKeyUsage=serverAuth,clientAuth"]
        if alternative_names:
            extensions.append(f"subjectAltName={','.join(alternative_names)}")
        return self._request(
            name,
            subject,
            "CA:FALSE",
            "digitalSignature",
            extensions,
            "-CA",
            self.own.certificate,
            "-CAkey",
            self.own.key,
        )

    def key_pair(self, name: str) -> Certificate:
        """A key for tokens: the public key stands in place of a certificate."""
        pair = self._files(name)
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{CURVE}", "-out", pair.key)
        _openssl("pkey", "-in", pair.key, "-pubout", "-out", pair.certificate)
        return pair

    def _request(
        self,
        name: str,
        subject: str,
        constraints: str,
        usage: str,
        extensions: Sequence[str],
        *signer: str | Path,
    ) -> Certificate:
        files = self._files(name)
        configuration = self.folder / f"{name}.cnf"
        lines = [f"basicConstraints=critical,{constraints}", f"keyUsage=critical,{usage}", *extensions]
        configuration.write_text(
            "[req]\ndistinguished_name=subject\nx509_extensions=extensions\n[subject]\n[extensions]\n"
            + "\n".join(lines)
        )
        _openssl(
            *["req", "-x509", "-config", configuration, "-subj", subject, "-days", str(DAYS)],
            *["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{CURVE}", "-noenc"],
            *["-keyout", files.key, "-out", files.certificate, *signer],
        )
        return files

    def _files(self, name: str) -> Certificate:
        return Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
