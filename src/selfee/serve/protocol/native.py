"""Our own API: one chain as named events that can be taken up again, and controlled while they come.

``POST /v1/selfee/chat`` starts a chain; with ``"stream": true`` (the default) the answer is an event stream::

    id: 4
    event: segment.delta
    data: {"type": "segment.delta", "seq": 4, "chain_id": "chain_…", "t": 0.31, "segment_id": "seg_1", "text": "Too "}

Every event has ``type`` (its name again), ``seq`` (from 1, without gaps), ``chain_id`` and ``t`` (seconds since the
chain was created). The others by type::

    chain.created      model, mode, policy {min_revisions, max_revisions}, seed, steps (made before, when a chain's
                       record is gone on with; as in the record)
    chain.queued       position (1 = next): it has to wait
    chain.started      seed: it computes (again after each control that goes on)
    segment.started    segment {id, type: "answer"|"feedback"|"revision", index}
    segment.delta      segment_id, text
    segment.completed  segment {id, type, index, text, finished, verdict: "needed"|"not_needed"|"none", phrase,
                       probability, source, tokens, seconds, prompt_tokens, cached_tokens, words (of a revision: {added,
                       removed, kept} against the answer before it, else null), diff (of a revision: [{kind:
                       "kept"|"added"|"removed", text}]; kept and added joined are its text, blanks included; null where
                       the texts are too long to be compared), score (of feedback: how content the critic is, 0 to 1,
                       where its verdict was measured, else null), mean_logprob (of its tokens, a following header's
                       too, where "logprobs" was asked for and the model tells them, else null)}
    segment.overruled  segment_id (of a feedback that was content), text (what it says now), verdict: "forced"
    chain.continued    action: "one_more"|"feedback"|"go_on", from_answer: what was written after that answer and has no
                       place in the chain any more is void (an unfinished segment, all after an earlier answer); a
                       person's own feedback then comes as segment.started and segment.completed with source "user"
    chain.completed    final, delivered (index of the answer delivered, or null), stop_cause, enforced (revisions that
                       were forced), truncated, status (a sentence), usage, chain (the record that /v1/selfee/chat
                       takes back as "chain")
    error              error {message, type, code, param}; nothing follows but what a control brings

``stop_cause`` is autonomous (the model was content), max_revisions, stalled (a revision changes nothing, or repeats an
earlier one), length (a budget or the context is used up), allowance (that of the whole chain), accepted (by the user),
cancelled, or error. ``ping`` events come without ``id`` when nothing else does; their data holds ``type`` and ``t``.

``GET /v1/selfee/chat/{id}/events?after=SEQ`` (or the header ``Last-Event-ID``) sends what came after that number, and
goes on live. ``GET /v1/selfee/chat/{id}`` tells how it stands: ``{id, status: "queued"|"running"|"completed"|"failed",
last_seq, model, created, chain}`` with the record of what there is so far. A chain that nobody listens to is stopped
after ``grace_seconds``, and forgotten some minutes after its end.

``POST /v1/selfee/chat/{id}/control`` takes one of::

    {"action": "stop"}       stop writing; the last finished answer is delivered
    {"action": "accept"}     the same, but the chain counts as accepted: its last finished answer is what I want
                             ("answer": INDEX takes an earlier one)
    {"action": "one_more"}   one revision more than there would be otherwise; also after the chain has ended
    {"action": "feedback", "feedback": "shorter, please"}    what is being written is dropped; the last finished answer
                             (or the one "answer" names) is revised after these words; also after the chain has ended

and answers ``{id, status, last_seq}``, 404 for an unknown chain, 409 where it cannot be done now. A chain that the
server has forgotten is gone on with by sending its record to ``/v1/selfee/chat``, as
``{"chain": {…}, "action": "one_more"}`` or ``{"chain": {…}, "action": "feedback", "feedback": "…"}``. One that
was cut off goes on after its last finished section, as if it had not been, with ``"action": "go_on"``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from selfee.serve.protocol.fields import Fields, Rounds, SamplingFields, TokenLimit

ModeName = Literal["auto", "single-pass", "guided", "turns"]
LONGEST_TEXT = 1 << 20  # characters
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class NativeMessage(Fields):
    """One turn: the answers delivered, not the chains that led to them."""

    role: Literal["system", "user", "assistant"]
    content: Text

    @property
    def text(self) -> str:
        """What was said."""
        return self.content


class NativeRequest(SamplingFields):
    """A question, as a conversation that ends with it, or a chain to go on with."""

    model: Annotated[str, Field(max_length=512)] | None = None
    messages: Annotated[list[NativeMessage], Field(max_length=4096)] | None = None
    input: Text = Field("", description="A text that the question is about.")
    stream: bool = True
    mode: ModeName | None = None
    prompts: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Name of the critic's and reviser's words."
    )
    min_revisions: Rounds | None = Field(None, description="Enforce at least so many.")
    max_revisions: Rounds | None = Field(None, description="Allow at most so many.")
    max_answer_tokens: TokenLimit | None = None
    max_feedback_tokens: TokenLimit | None = None
    max_revision_tokens: TokenLimit | None = None
    total_tokens: TokenLimit | None = Field(None, description="What the whole chain may generate.")
    total_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    logprobs: bool = Field(False, description="Tell each section's mean log-probability.")
    grace_seconds: Annotated[float, Field(ge=0, le=600)] | None = Field(
        None, description="How long the chain goes on when nobody listens any more."
    )
    chain: dict[str, Any] | None = Field(None, description="A chain's record to go on with, instead of messages.")
    action: Literal["one_more", "feedback", "go_on"] | None = Field(None, description="How to go on with ``chain``.")
    feedback: Text | None = None
    answer: Annotated[int, Field(ge=0, le=999)] | None = None


class ControlRequest(Fields):
    """What a running, or finished, chain is to do."""

    action: Literal["accept", "one_more", "stop", "feedback", "go_on"]
    feedback: Text | None = None
    answer: Annotated[int, Field(ge=0, le=999)] | None = Field(
        None, description="Number of the answer that is meant; left out: the last finished one."
    )
