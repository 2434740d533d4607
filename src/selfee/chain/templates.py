"""How a question is written for a model: in SelFee's form, Alpaca's, ChatML, or the model's own."""

from __future__ import annotations

from selfee.chain.run import Mode, choose_mode
from selfee.engines.base import TemplatedEngine
from selfee.errors import UsageError

TEMPLATES = ("auto", "selfee", "alpaca", "chatml", "own")
"""Names that can be asked for. "auto" takes what the model's file says."""

SELFEE_FORM = "SelFee"


def mode_for(template: str, mode: Mode = "auto") -> Mode:
    """The mode in which a template can be used. Raises UsageError where template and mode exclude each other."""
    if template not in TEMPLATES:
        raise UsageError(f"template: {template!r} is unknown; expected one of {', '.join(TEMPLATES)}")
    if template == "auto":
        return mode
    if template == "selfee":
        if mode == "turns":
            raise UsageError("template: selfee is one text, and mode turns a chat; expected one of them; leave one out")
        return "single-pass" if mode == "auto" else mode
    if mode not in ("auto", "turns"):
        raise UsageError(
            f"template: {template} is a chat, and mode {mode} one text; expected one of them; leave one out"
        )
    return "turns"


def use_template(engine: object, template: str) -> None:
    """Have an engine write chats in this form. Raises UsageError where it cannot: a server uses its own."""
    if template in ("auto", "selfee"):
        return
    if isinstance(engine, TemplatedEngine):
        engine.use_template(template)
    elif template != "own":
        name = getattr(engine, "name", type(engine).__name__)
        raise UsageError(f"template: {name} writes chats in its own form; expected auto, own or selfee; leave it out")


def name_template(engine: object, mode: Mode) -> str:
    """The template in use, in words; "" where nobody here knows it."""
    if choose_mode(engine, mode) != "turns":
        return SELFEE_FORM
    return engine.template if isinstance(engine, TemplatedEngine) else ""


def explain_choice(engine: object, mode: Mode, model: str) -> str:
    """What was chosen for a model by itself, and what else there is where that was a guess; "" where nothing was."""
    if not isinstance(engine, TemplatedEngine):
        return ""
    if getattr(engine, "trained_on_chains", False):
        return "template: SelFee's, on which the file says that it was trained"
    if choose_mode(engine, mode) == "turns":
        return f"template: {engine.template}"
    likely = "its name speaks for --template selfee" if "selfee" in model.lower() else "--template sets it"
    return f"template: the file has none, so each section is asked for in SelFee's form; {likely}"
