"""A worker makes itself known to a controller, and says again and again that it is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from selfee.engines.connection import trusted_certificates
from selfee.serve.fleet.settings import Identity, Patience

LOG = logging.getLogger("selfee.serve")
_LONGEST_PAUSE = 10.0


class Membership:
    """Goes on until ``close``; a controller that is gone, or was started anew, is found again."""

    def __init__(
        self,
        identity: Identity,
        status: Callable[[], Mapping[str, Any]],
        facts: Callable[[], Mapping[str, Any]],
        patience: Patience | None = None,
    ) -> None:
        self._identity = identity
        self._status = status
        self._facts = facts
        self._patience = patience or Patience()
        self._task: asyncio.Task[None] | None = None
        self.is_registered = False

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Say goodbye, where the controller understands it, and end."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        with contextlib.suppress(httpx2.HTTPError):
            async with self._client() as client:
                await client.post("/fleet/leave", json={"worker": self._identity.address})

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self._identity.controller.rstrip("/"),
            headers=self._identity.headers,
            timeout=self._patience.status,
            follow_redirects=False,
            trust_env=False,
            verify=trusted_certificates(),
        )

    async def _run(self) -> None:
        pause = 0.5
        async with self._client() as client:
            while True:
                if await self._try(client):
                    pause = 0.5
                    await asyncio.sleep(self._patience.beat)
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try(self, client: httpx2.AsyncClient) -> bool:
        """Register, or say that one is there; False = try again soon."""
        was, self.is_registered = self.is_registered, False
        where = f"controller {self._identity.controller}"
        try:
            if was and await self._beat(client):
                self.is_registered = True
                return True
            answer = await client.post("/register_worker", json=self._introduction())
        except httpx2.HTTPError as error:
            LOG.warning("%s: no answer (%s); trying again", where, type(error).__name__)
            return False
        except ValueError:
            LOG.warning("%s: answers something else than JSON; expected a controller there", where)
            return False
        if answer.status_code != 200:
            LOG.warning("%s: does not take this worker: status %d %s", where, answer.status_code, answer.text[:300])
            return False
        self.is_registered = True
        return True

    async def _beat(self, client: httpx2.AsyncClient) -> bool:
        beat = {"worker_name": self._identity.address, "queue_length": self._status()["queue_length"]}
        answer = await client.post("/receive_heart_beat", json=beat)
        return answer.status_code == 200 and bool(answer.json().get("exist"))

    def _introduction(self) -> Mapping[str, Any]:
        """FastChat's fields, and under ``selfee`` what only we know; its controller looks at its own alone."""
        return {
            "worker_name": self._identity.address,
            "check_heart_beat": True,
            "worker_status": self._status(),
            "multimodal": False,
            "selfee": {"facts": self._facts()},
        }
