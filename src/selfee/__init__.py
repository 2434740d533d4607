"""selfee: a language model that answers, criticises its own answer and rewrites it until it is content.

The names below are what programs use; each is loaded when first asked for, so ``import selfee`` costs next to nothing::

    import selfee

    with selfee.load("smollm2-135m", min_revisions=1) as model:
        chain = model.revise("Why is the sky blue?")
    print(chain.final)

``load`` and what it returns are the short way (``docs/guides/python.md``); ``open_engine`` and ``run_chain`` are what
it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.api import RevisingModel as RevisingModel
    from selfee.api import load as load
    from selfee.chain.many import run_chains as run_chains
    from selfee.chain.policy import RevisionPolicy as RevisionPolicy
    from selfee.chain.run import run_chain as run_chain
    from selfee.chain.run import stream_chain as stream_chain
    from selfee.chain.types import Chain as Chain
    from selfee.chain.types import Exchange as Exchange
    from selfee.chain.types import Instruction as Instruction
    from selfee.engines.base import SamplingParams as SamplingParams
    from selfee.engines.open import open_engine as open_engine
    from selfee.engines.scripted import ScriptedEngine as ScriptedEngine
    from selfee.errors import SelfeeError as SelfeeError
    from selfee.weights.open import open_checkpoint as open_checkpoint

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "Exchange",
    "Instruction",
    "RevisingModel",
    "RevisionPolicy",
    "SamplingParams",
    "ScriptedEngine",
    "SelfeeError",
    "load",
    "open_checkpoint",
    "open_engine",
    "run_chain",
    "run_chains",
    "stream_chain",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Chain": "selfee.chain.types",
        "Exchange": "selfee.chain.types",
        "Instruction": "selfee.chain.types",
        "RevisingModel": "selfee.api",
        "RevisionPolicy": "selfee.chain.policy",
        "SamplingParams": "selfee.engines.base",
        "ScriptedEngine": "selfee.engines.scripted",
        "SelfeeError": "selfee.errors",
        "load": "selfee.api",
        "open_checkpoint": "selfee.weights.open",
        "open_engine": "selfee.engines.open",
        "run_chain": "selfee.chain.run",
        "run_chains": "selfee.chain.many",
        "stream_chain": "selfee.chain.run",
    },
)
