"""A chain as a piece of HTML: the answer in sight, and folded above it what was said, criticised and changed.

It needs no script and no other file, follows light and dark, and holds nothing that its texts could turn into markup.
"""

from __future__ import annotations

import html
import unicodedata

from selfee.chain.changes import compare, edits
from selfee.chain.types import Chain, Check, Cost, Step, Verdict, VerdictSource

# Overrides and isolates can show a text in another order than it is in.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TAGS = {"added": "ins", "removed": "del"}

# Notebooks say by an attribute whether they are light or dark; elsewhere the reader's own setting decides.
_DARK = "--line:#3d444d;--soft:#9aa4af;--good:#56d364;--warn:#e3b341;--note:#d2a8ff;--new:#1b4721;--old:#5d1f1c;"
_LIGHT = "--line:#d0d7de;--soft:#59636e;--good:#116329;--warn:#7d4e00;--note:#6f42c1;--new:#d2f4d9;--old:#ffdcd7;"
_STYLE = (
    f".selfee-chain{{{_LIGHT}max-width:46em;line-height:1.45;font-size:14px}}"
    f"@media(prefers-color-scheme:dark){{.selfee-chain{{{_DARK}}}}}"
    f'[data-jp-theme-light="true"] .selfee-chain,.vscode-light .selfee-chain{{{_LIGHT}}}'
    f'[data-jp-theme-light="false"] .selfee-chain,.vscode-dark .selfee-chain{{{_DARK}}}'
    ".selfee-chain details{border-left:3px solid var(--line);margin:0 0 .35em;padding:0 0 0 .7em}"
    ".selfee-chain summary{cursor:pointer}"
    ".selfee-chain summary b{font-weight:600}"
    ".selfee-chain summary:focus-visible{outline:2px solid var(--note)}"
    ".selfee-chain .text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;margin:.25em 0 .5em}"
    ".selfee-chain .question{font-weight:600;margin-bottom:.5em}"
    ".selfee-chain .feedback,.selfee-chain .soft{color:var(--soft)}"
    ".selfee-chain .chip{border:1px solid currentColor;border-radius:1em;padding:0 .55em;font-size:.85em;"
    "margin-left:.5em;white-space:nowrap}"
    ".selfee-chain .good{color:var(--good)}.selfee-chain .warn{color:var(--warn)}.selfee-chain .note{color:var(--note)}"
    ".selfee-chain ins{background:var(--new);text-decoration:none}"
    ".selfee-chain del{background:var(--old);text-decoration:line-through}"
    ".selfee-chain del+ins{margin-left:.2em}"
    ".selfee-chain .final{border-left:3px solid var(--good);padding:.1em 0 .1em .7em;margin:.5em 0}"
    ".selfee-chain .soft{font-size:.9em}"
)


def chain_html(chain: Chain) -> str:
    """The chain as one ``div`` with its own style."""
    parts = [f'<div class="selfee-chain"><style>{_STYLE}</style>', _text(chain.instruction.question, "question")]
    if len(chain.steps) > 1 or any(step.feedback is not None for step in chain.steps):
        for number, step in enumerate(chain.steps):
            parts += [_answer(chain, number), _feedback(step, number)]
    if chain.final:
        label = "final answer" if chain.delivered is not None else "unfinished answer"
        parts.append(f'<div class="final"><b>{label}</b>{_which(chain)}{_text(chain.final)}</div>')
    parts.append(f'<div class="soft">{_escape(_summary(chain))}</div></div>')
    return "".join(parts)


def _answer(chain: Chain, number: int) -> str:
    step = chain.steps[number]
    label = f"revision {number}" if number else "answer"
    told, body = _cost(step.answer_cost), _text(step.answer)
    if number:
        before = chain.steps[number - 1].answer
        told = f"{compare(before, step.answer).summary}{' · ' if told else ''}{told}"
        body = _difference(before, step.answer)
    chips = "" if step.answer_finished else _chip("cut off", "warn")
    return _folded(label, chips + _check_chip(step.check), told, body + _reason(step.check))


def _feedback(step: Step, number: int) -> str:
    if step.feedback is None:
        return ""
    chips = _verdict_chip(step.verdict) + ("" if step.feedback_finished else _chip("cut off", "warn"))
    said = step.feedback if step.overruled is None else step.overruled
    return _folded(f"feedback {number + 1}", chips, _cost(step.feedback_cost), _text(said, "feedback"))


def _folded(label: str, chips: str, told: str, body: str) -> str:
    soft = f' <span class="soft">{_escape(told)}</span>' if told else ""
    return f"<details><summary><b>{label}</b>{chips}{soft}</summary>{body}</details>"


def _difference(old: str, new: str) -> str:
    pieces = edits(old, new)
    if pieces is None:
        return _text(new)
    marked = []
    for piece in pieces:
        tag = _TAGS.get(piece.kind)
        words = _escape(piece.text)
        if tag is None:
            marked.append(words)
            continue
        bare = words.lstrip()  # the blank before a word is no part of what changed
        marked.append(f"{words[: len(words) - len(bare)]}<{tag}>{bare}</{tag}>" if bare else words)
    return f'<div class="text" dir="auto">{"".join(marked)}</div>'


def _verdict_chip(verdict: Verdict | None) -> str:
    if verdict is None:
        return _chip("no verdict", "warn")
    if verdict.source is VerdictSource.SILENCE:
        chip = _chip("asks for no revision", "warn")
    else:
        chip = _chip("revision needed", "warn") if verdict.needed else _chip("revision not needed", "good")
    if verdict.source is VerdictSource.USER:
        chip += _chip("yours", "note")
    return chip + (_chip("forced", "note") if verdict.forced else "")


def _check_chip(check: Check | None) -> str:
    if check is None:
        return ""
    if check.failed:
        return _chip("the check failed itself", "warn")
    score = "" if check.score is None else f" {check.score:g}"
    if check.passed is None:
        return _chip(f"checked{score}" if score else "cannot be checked", "note")
    return _chip(f"passed{score}", "good") if check.passed else _chip(f"not passed{score}", "warn")


def _reason(check: Check | None) -> str:
    return "" if check is None or not check.reason else _text(check.reason, "soft")


def _chip(text: str, kind: str) -> str:
    return f'<span class="chip {kind}">{_escape(text)}</span>'


def _which(chain: Chain) -> str:
    """Which of the answers is delivered, where it is not the last."""
    delivered = chain.delivered
    if delivered is None or delivered == len(chain.steps) - 1:
        return ""
    return f' <span class="soft">{f"revision {delivered}" if delivered else "the first answer"}</span>'


def _summary(chain: Chain) -> str:
    cost = chain.cost
    timing = f" in {cost.seconds:.1f} s" if cost.seconds > 0 else ""
    parts = [
        chain.status or chain.end.value,
        f"{cost.tokens} tokens{timing}" if cost.tokens else "",
        chain.engine,
        f"seed {chain.seed}" if chain.seed is not None else "",
    ]
    return " · ".join(part for part in parts if part)


def _cost(cost: Cost | None) -> str:
    return "" if cost is None else f"{cost.tokens} tokens, {cost.seconds:.1f} s"


def _text(text: str, kind: str = "") -> str:
    return f'<div class="text{" " + kind if kind else ""}" dir="auto">{_escape(text)}</div>'


def _escape(text: str) -> str:
    """Text that can only be text: no markup, no characters that HTML or UTF-8 cannot hold."""
    whole = text if text.isprintable() else "".join(map(_harmless, text))
    return html.escape(whole)


def _harmless(character: str) -> str:
    if character in "\n\t":
        return character
    if character in _BIDI:
        return ""
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character
