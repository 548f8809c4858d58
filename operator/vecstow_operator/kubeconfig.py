"""The address of the API server and the credentials for it: the pod's service account, or a kubeconfig.

The client's library raises many kinds of errors, or logs one and goes on without credentials. Here each
becomes one error that names the kubeconfig.
"""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigLoader, KubeConfigMerger
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
RETRIES: Final = Retry(1, respect_retry_after_header=False)
"""One retry without an answer: the API server may have closed the connection since the last request. More
retries, or the hours of a Retry-After, would block the pass."""
MESSAGE_CHARACTERS_MAX: Final = 400
AUTH_PROVIDER: Final = "oidc"
"""The only auth-provider: Kubernetes 1.26 removed the others."""
_STUMBLES: Final = (AttributeError, ImportError, LookupError, RecursionError, TypeError, ValueError)
"""The errors of the library for a file of another form."""


class Unconfigured(ConfigException):
    """Raised when there is no kubeconfig, or a wrong one; the message names the file."""


def load_configuration() -> str:
    """Find the API server by the pod's service account or a kubeconfig. Return the namespace.

    Raises Unconfigured.
    """
    try:
        config.load_incluster_config()
    except ConfigException:
        return _follow_kubeconfig()
    client.Configuration.get_default().retries = RETRIES
    try:
        return NAMESPACE_FILE.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Unconfigured(f"{NAMESPACE_FILE} cannot be read: {error}; say --namespace") from error


def client_of(context: str | None) -> tuple[client.ApiClient, str]:
    """Return a client for a context of the kubeconfig, and its namespace; None: the current context.

    Raises Unconfigured.
    """
    configuration = client.Configuration()
    namespace = _load(context, configuration)
    configuration.retries = RETRIES
    with _named():
        return client.ApiClient(configuration), namespace


@dataclass(slots=True)
class _Kubeconfig:
    """A hook that reads a changed kubeconfig again before a request: tokens are renewed in place.

    Every client copies its configuration, and this hook with it.
    """

    paths: list[Path]
    read: list[int]
    """The times when the files were written."""
    renew: Callable[[Any], None] | None
    """The hook of the library, which renews the token of a plugin."""

    def __call__(self, configuration: Any) -> None:
        written = _times(self.paths)
        if written != self.read:
            _load(None, configuration)
            self.renew = configuration.refresh_api_key_hook
            configuration.refresh_api_key_hook = self
            self.read = written
        elif self.renew is not None:
            self.renew(configuration)
            configuration.refresh_api_key_hook = self


def _follow_kubeconfig() -> str:
    configuration: Any = client.Configuration()
    namespace = _load(None, configuration)
    paths = _paths()
    hook = _Kubeconfig(paths, _times(paths), configuration.refresh_api_key_hook)
    configuration.refresh_api_key_hook = hook
    configuration.retries = RETRIES
    client.Configuration.set_default(configuration)
    return namespace


def _load(context: str | None, configuration: Any) -> str:
    """Read the kubeconfig into a configuration. Return the context's namespace. Raises Unconfigured."""
    with _named(), _logged() as complaints:
        merged = KubeConfigMerger(KUBE_CONFIG_DEFAULT_LOCATION)
        if merged.config is None:
            raise ConfigException("it does not exist; the variable KUBECONFIG names another")
        loader = KubeConfigLoader(
            copy.copy(merged.config), active_context=context, config_persister=merged.save_changes
        )
        chosen = loader.current_context["context"]
        _refuse_removed(merged.config, chosen.get("user"))
        loader.load_and_set(configuration)
        if complaints:
            raise ConfigException(complaints[-1])
        if not hasattr(loader, "host"):
            raise ConfigException(f"cluster {chosen['cluster']!r} has no server")
        return str(chosen.get("namespace") or "default")


def _refuse_removed(merged: Any, user: str | None) -> None:
    """Raise ConfigException for a user whose way of authentication was removed."""
    if user is None:
        return
    found = merged["users"].get_with_name(user, safe=True)
    provider = (found.value.get("user") or {}).get("auth-provider") if found is not None else None
    if provider is not None and provider.get("name") != AUTH_PROVIDER:
        raise ConfigException(
            f"user {user!r} has the auth-provider {provider.get('name')!r}, which Kubernetes 1.26 removed; "
            "use the exec plugin that took its place"
        )


def _paths() -> list[Path]:
    return [Path(os.path.expanduser(path)) for path in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if path]


def _times(paths: Iterable[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths if path.exists()]


@contextmanager
def _named() -> Iterator[None]:
    """Turn the library's errors into Unconfigured, with the name of the kubeconfig and without a token."""
    name = f"kubeconfig {':'.join(map(str, _paths()))}"
    try:
        yield
    except ConfigException as error:
        # The library quotes the whole entry, and a token with it.
        said = re.sub(r"/?\{.*", "…", str(error), flags=re.DOTALL).removeprefix("Invalid kube-config file. ")
        raise Unconfigured(f"{name}: {said[:MESSAGE_CHARACTERS_MAX]}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        problem = str(error.problem).replace("unexpected ", "")  # "unexpected" is for defects of Vecstow
        raise Unconfigured(f"{name} is no valid YAML: {line}{problem}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unconfigured(f"{name} is no text in UTF-8: {str(error).splitlines()[0]}") from None
    except HTTPError as error:
        raise Unconfigured(f"{name}: what it names cannot be asked: {error}") from error
    except OSError as error:
        file = error.filename or "a file that it names"
        raise Unconfigured(f"{name}: {file} cannot be read: {error.strerror or error}") from error
    except _STUMBLES as error:
        raise Unconfigured(f"{name} is no kubeconfig: {error!r}"[:MESSAGE_CHARACTERS_MAX]) from error


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Yield the messages that the library logs meanwhile: it logs the failure of a plugin, and goes on."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield found
    finally:
        root.removeHandler(handler)
