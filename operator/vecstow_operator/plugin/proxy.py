"""Requests to an engine through the API server's proxy of its pod."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from vecstow_operator.keys import EngineKey, NoKey

CONNECT_SECONDS_MAX: Final = 5.0
ANSWER_SECONDS_MAX: Final = 600.0
"""A check reads every row."""


class NoAnswer(Exception):
    """Raised when an engine refuses a request or cannot be reached; the message has the reason."""


class NotAllowed(NoAnswer):
    """Raised when the engine wants a key, or another one, or the API server wants a right."""


@dataclass(frozen=True, slots=True)
class EngineProxy:
    """One engine pod."""

    api: client.ApiClient
    namespace: str
    pod: str
    port: int
    key: EngineKey = field(default_factory=EngineKey)

    def call(
        self, method: str, *path: str, body: object = None, seconds_max: float = ANSWER_SECONDS_MAX
    ) -> Any:
        """Return the `data` of the answer. Raises NoAnswer or its subclass NotAllowed."""
        below = "/".join(quote(part, safe="") for part in path)
        where = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:{self.port}/proxy/{below}"
        headers = {"Accept": "application/json"} | self._headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self.api.param_serialize(
            method, where, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            answer = self.api.call_api(*request, _request_timeout=(CONNECT_SECONDS_MAX, seconds_max))
            content: bytes = answer.read()
        except (ApiException, HTTPError, OSError) as error:
            raise NoAnswer(f"the API server does not answer: {error}") from error
        if answer.status != HTTPStatus.OK:
            message = f"pod {self.pod}: {_message(content) or f'{answer.status} {answer.reason}'}"
            if answer.status == HTTPStatus.UNAUTHORIZED:
                raise NotAllowed(f"{message}: export VECSTOW_API_KEY=…, or --key-file FILE")
            raise (NotAllowed if answer.status == HTTPStatus.FORBIDDEN else NoAnswer)(message)
        try:
            return json.loads(content)["data"]
        except (ValueError, TypeError, KeyError) as error:
            raise NoAnswer(f"pod {self.pod}: its answer is not understood: {error!r}") from error

    def _headers(self) -> dict[str, str]:
        try:
            return self.key.headers()
        except NoKey as error:
            raise NoAnswer(str(error)) from error


def _message(content: bytes) -> str | None:
    """Return the message of the engine or of the API server."""
    try:
        document = json.loads(content)
        return str(document.get("error") or document["message"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
