"""The heart: answer, feedback, revision. The only home of the text format, the verdict and the stop rule.

``stream_chain`` drives any engine and yields events; ``run_chain`` returns the finished Chain. Never knows where a
model lies, what a tokenizer is, or how a screen looks.
"""

from selfee.chain.budgets import Budgets
from selfee.chain.policy import Action, RevisionPolicy
from selfee.chain.run import ChainStream, run_chain, stream_chain
from selfee.chain.types import (
    Chain,
    ChainEnd,
    ChainFinished,
    CutReason,
    Event,
    Instruction,
    Overruled,
    Section,
    SectionEnd,
    SectionStart,
    Step,
    TextDelta,
    Verdict,
)

__all__ = [
    "Action",
    "Budgets",
    "Chain",
    "ChainEnd",
    "ChainFinished",
    "ChainStream",
    "CutReason",
    "Event",
    "Instruction",
    "Overruled",
    "RevisionPolicy",
    "Section",
    "SectionEnd",
    "SectionStart",
    "Step",
    "TextDelta",
    "Verdict",
    "run_chain",
    "stream_chain",
]
