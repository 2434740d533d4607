"""Requests that no engine could honour are refused where they are made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfee.engines.base import ChatRequest, Message, Request, SamplingParams, chat_of, scoring_of
from selfee.errors import UsageError

USER = [Message("user", "Hi")]


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"max_tokens": -1}, "max_tokens"), ({"stop": [""]}, "stop"), ({"stop": "x"}, "stop"), ({"stop": [5]}, "stop")],
)
def test_impossible_limits_are_refused(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: "):
        Request("Q", **fields)
    with pytest.raises(UsageError, match=f"^{name}: "):
        ChatRequest(USER, **fields)


def test_negative_logprobs_and_unknown_roles_are_refused() -> None:
    with pytest.raises(UsageError, match="logprobs"):
        Request("Q", logprobs=-1)
    with pytest.raises(UsageError, match="'wizard'"):
        Message("wizard", "Hi")
    with pytest.raises(UsageError, match="no messages"):
        ChatRequest([])


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1},
        {"temperature": 1e-300},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"mirostat": 3},
        {"samplers": ["magic"]},
    ],
)
def test_parameters_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SamplingParams(**fields)


def test_something_that_is_no_engine_has_no_abilities() -> None:
    assert chat_of(object()) is None
    assert scoring_of(object()) is None


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_bias_that_no_sampler_could_add_is_refused(bias: float) -> None:
    with pytest.raises(UsageError, match="for token 5"):
        SamplingParams(logit_bias={5: bias})
    assert SamplingParams(logit_bias={5: -math.inf}).logit_bias[5] == -math.inf
