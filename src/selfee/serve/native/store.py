"""The chains that are remembered: by an id that nobody can guess, for their owner alone, and not for ever."""

from __future__ import annotations

import time

from selfee.serve.native.live import LiveChain
from selfee.serve.protocol.errors import ApiError


class ChainStore:
    """Keeps up to ``most`` chains, each until ``seconds`` after its end; those that run are always kept."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._chains: dict[str, LiveChain] = {}

    def add(self, chain: LiveChain) -> None:
        """Remember a chain."""
        self._forget()
        self._chains[chain.id] = chain

    def find(self, name: str, owner: str) -> LiveChain:
        """The chain of this id. Raises ApiError (404) where this owner has none."""
        self._forget()
        chain = self._chains.get(name)
        if chain is None or chain.owner != owner:
            raise ApiError(
                404,
                "chain: there is none of this id; expected one that was begun here and is not too old; send its record "
                "to go on",
                param="id",
                code="chain_not_found",
            )
        return chain

    async def close(self) -> None:
        """Stop them all."""
        running = [chain for chain in self._chains.values() if chain.is_running]
        for chain in running:
            chain.stop()
        for chain in running:
            await chain.wait()

    def _forget(self) -> None:
        now = time.monotonic()
        ended = [chain for chain in self._chains.values() if chain.ended is not None and not chain.is_running]
        for chain in ended:
            assert chain.ended is not None, "chosen so"
            if now - chain.ended > self._seconds:
                del self._chains[chain.id]
        surplus = len(self._chains) - self._most
        for chain in [each for each in ended if each.id in self._chains][: max(0, surplus + 1)]:
            del self._chains[chain.id]
