"""The heart: answer, feedback, revision. The only home of the text format, the verdict and the stop rule.

``stream_chain`` drives any engine and yields events; ``run_chain`` returns the finished Chain, ``run_chains`` makes
several at a time; ``run_samples`` asks several times instead of revising. Never knows where a model lies, what a
tokenizer is, or how a terminal looks.
"""

from selfee.chain.allowance import Allowance, match_cost
from selfee.chain.budgets import Budgets
from selfee.chain.checkers import Checker, CommandChecker, FunctionChecker, JudgeChecker, RegexChecker, Signal
from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.many import run_chains
from selfee.chain.policy import Action, RevisionPolicy
from selfee.chain.resampling import SamplesStream, run_samples, stream_samples
from selfee.chain.run import ChainStream, run_chain, stream_chain
from selfee.chain.samples import Sampled, Samples, SamplesEnd, SamplesFinished
from selfee.chain.selectors import best_by, best_checked, highest_score, last_finished, least_doubted, most_agreed
from selfee.chain.types import (
    Chain,
    ChainEnd,
    ChainFinished,
    Check,
    Checked,
    CutReason,
    Event,
    Exchange,
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
    "Allowance",
    "Budgets",
    "Chain",
    "ChainEnd",
    "ChainFinished",
    "ChainStream",
    "Check",
    "Checked",
    "Checker",
    "CommandChecker",
    "CutReason",
    "Event",
    "Exchange",
    "FunctionChecker",
    "Instruction",
    "JudgeChecker",
    "Overruled",
    "RegexChecker",
    "RevisionPolicy",
    "Sampled",
    "Samples",
    "SamplesEnd",
    "SamplesFinished",
    "SamplesStream",
    "Section",
    "SectionEnd",
    "SectionStart",
    "Signal",
    "Step",
    "TextDelta",
    "Verdict",
    "best_by",
    "best_checked",
    "highest_score",
    "last_finished",
    "least_doubted",
    "match_cost",
    "most_agreed",
    "run_chain",
    "run_chains",
    "run_samples",
    "steps_of",
    "stream_chain",
    "stream_samples",
    "with_feedback",
]
