"""The objects of the Responses API: the response itself, its items, their parts."""

from __future__ import annotations

import secrets
import time
from typing import Any

from selfee.chain.types import Chain
from selfee.serve.native.telling import count_forced
from selfee.serve.protocol.responses import ResponsesRequest


def new_id(kind: str) -> str:
    """An id that nobody can guess."""
    return f"{kind}_{secrets.token_hex(16)}"


def response_object(asked: ResponsesRequest, model: str, temperature: float, top_p: float) -> dict[str, Any]:
    """A response that has just begun."""
    reasoning = asked.reasoning
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": temperature,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "none",
        "tools": [],
        "top_logprobs": 0,
        "top_p": top_p,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": asked.metadata or {},
    }


def reasoning_item(name: str, heading: str | None, text: str | None) -> dict[str, Any]:
    """A draft or a feedback as reasoning; without a text it has just begun."""
    done = text is not None
    return {
        "id": name,
        "type": "reasoning",
        "status": "completed" if done else "in_progress",
        "summary": [{"type": "summary_text", "text": heading}] if done and heading else [],
        "content": [{"type": "reasoning_text", "text": text}] if done else [],
        "encrypted_content": None,
    }


def message_item(name: str, text: str | None, phase: str, status: str = "completed") -> dict[str, Any]:
    """A message; without a text it has just begun."""
    done = text is not None
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "phase": phase,
        "status": status if done else "in_progress",
        "content": [text_part(text or "")] if done else [],
    }


def text_part(text: str) -> dict[str, Any]:
    """A message's text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def usage_object(chain: Chain, final_tokens: int) -> dict[str, Any]:
    """What a chain cost."""
    cost = chain.cost
    return {
        "input_tokens": cost.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cost.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": cost.tokens,
        "output_tokens_details": {"reasoning_tokens": max(0, cost.tokens - final_tokens)},
        "total_tokens": cost.prompt_tokens + cost.tokens,
        "selfee": {"enforced": count_forced(chain), "revisions": chain.num_revisions},
    }
