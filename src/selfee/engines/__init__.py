"""Whoever can continue a text: a model on this machine, a server, or a script.

``open_engine`` opens each by what a user writes. Never knows what an answer, feedback or revision is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.engines.base import ChatEngine as ChatEngine
    from selfee.engines.base import ChatRequest as ChatRequest
    from selfee.engines.base import Chunk as Chunk
    from selfee.engines.base import Engine as Engine
    from selfee.engines.base import FinishReason as FinishReason
    from selfee.engines.base import Message as Message
    from selfee.engines.base import Request as Request
    from selfee.engines.base import SamplingParams as SamplingParams
    from selfee.engines.base import Usage as Usage
    from selfee.engines.local import LocalEngine as LocalEngine
    from selfee.engines.open import open_engine as open_engine
    from selfee.engines.remote import RemoteEngine as RemoteEngine
    from selfee.engines.scripted import ScriptedEngine as ScriptedEngine

__all__ = [
    "ChatEngine",
    "ChatRequest",
    "Chunk",
    "Engine",
    "FinishReason",
    "LocalEngine",
    "Message",
    "RemoteEngine",
    "Request",
    "SamplingParams",
    "ScriptedEngine",
    "Usage",
    "open_engine",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ChatEngine": "selfee.engines.base",
        "ChatRequest": "selfee.engines.base",
        "Chunk": "selfee.engines.base",
        "Engine": "selfee.engines.base",
        "FinishReason": "selfee.engines.base",
        "LocalEngine": "selfee.engines.local",
        "Message": "selfee.engines.base",
        "RemoteEngine": "selfee.engines.remote",
        "Request": "selfee.engines.base",
        "SamplingParams": "selfee.engines.base",
        "ScriptedEngine": "selfee.engines.scripted",
        "Usage": "selfee.engines.base",
        "open_engine": "selfee.engines.open",
    },
)
