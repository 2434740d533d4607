"""The parts of an OpenAI-compatible server that batches need: files up and down, batches made and looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from selfee.engines.connection import check_base_url
from selfee.engines.retry import RETRYABLE_STATUSES, RefusedError, RetryPolicy, call_with_retries, parse_retry_after
from selfee.engines.wire import parse_complaint, parse_payload, to_error
from selfee.errors import EngineError

T = TypeVar("T")

_TIMEOUT = 120.0
_LISTED = 100
_RETRY = RetryPolicy(attempts=6, deadline=600.0)


class FilesApi:
    """Speaks with one server; the key appears in no error."""

    def __init__(self, address: str, key: str | None, *, proxy: str | None = None) -> None:
        self._base = check_base_url(address)
        self._key = key
        headers = {"user-agent": "selfee"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT, trust_env=False, proxy=proxy)

    def upload(self, path: Path) -> str:
        """The id under which the server keeps the file."""

        def send() -> httpx2.Response:
            with path.open("rb") as file:
                return self._client.post(
                    f"{self._base}/files", data={"purpose": "batch"}, files={"file": (path.name, file)}
                )

        return str(self._object("/files", send)["id"])

    def create(self, file_id: str, endpoint: str, label: str) -> dict[str, Any]:
        """A new batch over that file, labelled so that it can be found again."""
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": {"selfee": label},
        }
        # Not retried where the outcome is unknown: the batch may exist. Whoever runs again finds it by its label.
        return self._object("/batches", lambda: self._client.post(f"{self._base}/batches", json=body), blindly=False)

    def find(self, label: str) -> dict[str, Any] | None:
        """The batch with this label among the latest, if there is one."""
        url = f"{self._base}/batches"
        listed = self._object("/batches", lambda: self._client.get(url, params={"limit": _LISTED})).get("data")
        for batch in listed if isinstance(listed, list) else []:
            if isinstance(batch, dict) and (batch.get("metadata") or {}).get("selfee") == label:
                return batch
        return None

    def look(self, batch_id: str) -> dict[str, Any]:
        """How far a batch is."""
        return self._object("/batches", lambda: self._client.get(f"{self._base}/batches/{batch_id}"))

    def lines(self, file_id: str) -> Iterator[Mapping[str, Any]]:
        """Every JSON line of a file on the server."""
        where = f"{self._base}/files/{file_id}/content"

        def fetch() -> bytes:
            return self._sent(where, lambda: self._client.get(where)).content

        for line in call_with_retries(_RETRY, fetch).splitlines():
            if line.strip():
                yield parse_payload(line, where)

    def close(self) -> None:
        """Close the sockets."""
        self._client.close()

    def _object(self, path: str, send: Callable[[], httpx2.Response], *, blindly: bool = True) -> dict[str, Any]:
        where = f"{self._base}{path}"

        def attempt() -> dict[str, Any]:
            return parse_payload(self._sent(where, send, blindly).content, where)

        payload = call_with_retries(_RETRY, attempt)
        if not isinstance(payload.get("id"), str) and "data" not in payload:
            raise EngineError(f"{where}: found no id in the reply; expected an OpenAI-compatible Batch API")
        return payload

    def _sent(self, where: str, send: Callable[[], httpx2.Response], blindly: bool = True) -> httpx2.Response:
        try:
            response = send()
        except httpx2.HTTPError as error:
            told = EngineError(f"{where}: the connection broke ({error}); try again", retryable=True, kind="connection")
            raise RefusedError(told, again=blindly or isinstance(error, httpx2.ConnectError)) from error
        if response.status_code == 200:
            return response
        complaint: Any = response.text
        with contextlib.suppress(ValueError):
            complaint = response.json()
        text = parse_complaint(complaint, response.status_code)
        error_ = to_error(where, text)
        again = response.status_code in RETRYABLE_STATUSES and (blindly or response.status_code == 429)
        raise RefusedError(self._redacted(error_), again=again, retry_after=parse_retry_after(response.headers))

    def _redacted(self, error: Any) -> Any:
        if self._key and self._key in str(error):
            return EngineError(str(error).replace(self._key, "[key]"))
        return error
