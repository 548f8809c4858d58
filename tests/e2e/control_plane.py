"""The control plane of a cluster that has a node: pods are scheduled, and find the API server."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.control_plane import ControlPlane


class NodeControlPlane(ControlPlane):
    """A control plane on an address that pods reach."""

    def __init__(self, programs: Path, folder: Path, address: str) -> None:
        super().__init__(programs, folder, address)
        user = "system:kube-scheduler"
        kubeconfig = self.certificate_kubeconfig(
            "kube-scheduler", self.authority.issue("kube-scheduler", user)
        )
        self._scheduler = self._program(
            "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"
        )

    def start(self) -> None:
        """Start, the scheduler last; raises StartFailed."""
        super().start()
        self._scheduler.start()

    def stop(self) -> None:
        """End every program."""
        self._scheduler.kill()
        super().stop()

    def _api_server_flags(self) -> list[str]:
        client = self.authority.issue("kubelet-client", "kubelet-client", organization="system:masters")
        return [
            # Of a flag that is given twice the last one counts.
            *super()._api_server_flags(),
            "--endpoint-reconciler-type=lease",
            "--allow-privileged=true",
            # What `exec` and `logs` go through.
            f"--kubelet-client-certificate={client.certificate}",
            f"--kubelet-client-key={client.key}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
