"""How the model thinks: tokens in, logits out. Never knows where weights come from or what the text means.

``Model.load`` binds a file to the forward pass, ``Model.new_session`` begins a conversation
(``selfee.llama.generate`` continues one, ``save_session`` keeps it on disk), ``load_tokenizer`` and ``ChatTemplate``
turn text and chats into tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.llama.chat_template import ChatTemplate as ChatTemplate
    from selfee.llama.config import LlamaConfig as LlamaConfig
    from selfee.llama.model import Model as Model
    from selfee.llama.model import Session as Session
    from selfee.llama.sampling import Sampler as Sampler
    from selfee.llama.sampling import SamplerConfig as SamplerConfig
    from selfee.llama.session_file import load_session as load_session
    from selfee.llama.session_file import save_session as save_session
    from selfee.llama.tokenizer import Tokenizer as Tokenizer
    from selfee.llama.tokenizer import load_tokenizer as load_tokenizer

__all__ = [
    "ChatTemplate",
    "LlamaConfig",
    "Model",
    "Sampler",
    "SamplerConfig",
    "Session",
    "Tokenizer",
    "load_session",
    "load_tokenizer",
    "save_session",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ChatTemplate": "selfee.llama.chat_template",
        "LlamaConfig": "selfee.llama.config",
        "Model": "selfee.llama.model",
        "Sampler": "selfee.llama.sampling",
        "SamplerConfig": "selfee.llama.sampling",
        "Session": "selfee.llama.model",
        "Tokenizer": "selfee.llama.tokenizer",
        "load_session": "selfee.llama.session_file",
        "load_tokenizer": "selfee.llama.tokenizer",
        "save_session": "selfee.llama.session_file",
    },
)
