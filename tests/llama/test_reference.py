"""The slow twin against programs and formulas that know nothing of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.llama.llama2c import convert, read_pieces
from tests.tiny import make_tiny

from selfee.llama.generate import Session, generate
from selfee.llama.model import Model
from selfee.llama.reference import ReferenceSession
from selfee.llama.rope import plain_frequencies, rotate
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.weights.open import open_checkpoint


def greedy_text(session: Session, pieces: list[bytes], count: int) -> str:
    tokens = [token.id for token in generate(session, [1], Sampler(SamplerConfig(temperature=0)), max_tokens=count)]
    return b"".join(pieces[token] for token in tokens).decode().removeprefix(" ")


@pytest.mark.corpus
@pytest.mark.parametrize("twin", ["reference", "native"])
def test_a_trained_model_writes_what_llama2_c_wrote_with_it(corpus: Path, tmp_path: Path, twin: str) -> None:
    folder = corpus / "tinyllama"
    expected = (folder / "greedy_128_run.c.txt").read_text(encoding="utf-8")
    pieces = read_pieces(folder / "tok512.bin", 512)
    with open_checkpoint(convert(folder / "aidreams260K.bin", tmp_path / "aidreams.gguf")) as checkpoint:
        model = Model.load(checkpoint)
        session: Session = ReferenceSession(checkpoint) if twin == "reference" else model.new_session()
        text = greedy_text(session, pieces, 127)
    assert min(len(expected), len(text)) > 200
    assert text.startswith(expected.rstrip("\n")) or expected.startswith(text)


def test_a_turn_by_position_keeps_lengths_and_depends_on_distance_only() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 16)).astype(np.float32)
    frequencies = plain_frequencies(16, 10000.0).tolist()

    def turned(
        x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], position: int, halves: bool
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rotate(x, np.array([position]), frequencies, halves)

    for halves in (False, True):
        assert np.linalg.norm(turned(q, 77, halves)) == pytest.approx(np.linalg.norm(q), rel=1e-6)
        near = float((turned(q, 5, halves) * turned(k, 3, halves)).sum())
        far = float((turned(q, 305, halves) * turned(k, 303, halves)).sum())
        assert near == pytest.approx(far, abs=1e-4)


def test_the_two_layouts_of_rotation_differ_by_a_permutation_of_the_head() -> None:
    x = np.random.default_rng(1).normal(size=(3, 2, 8)).astype(np.float32)
    positions, frequencies = np.arange(3) + 4, plain_frequencies(8, 100.0).tolist()
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # neighbours -> halves
    by_halves = rotate(x, positions, frequencies, halves=True)
    by_neighbours = rotate(x[..., order], positions, frequencies, halves=False)
    assert np.array_equal(by_halves[..., order], by_neighbours)


def test_one_layer_equals_the_formulas_written_out_token_by_token(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "tiny.gguf", n_layer=1, n_head_kv=2)) as checkpoint:
        session = ReferenceSession(checkpoint)
        tokens = [5, 17, 3, 200]
        logits = session.forward(tokens, "all")
        weights = {
            name: checkpoint.read(name).reshape(-1).view("<f4").reshape(tensor.shape).astype(np.float64)
            for name, tensor in checkpoint.tensors.items()
        }
        block = {name.removeprefix("blk.0."): weight for name, weight in weights.items()}

    def norm(x: list[float], weight: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
        size = sum(v * v for v in x) / len(x)
        return [v / (size + 1e-5) ** 0.5 * float(w) for v, w in zip(x, weight, strict=True)]

    heads, dim, keys, values = 4, 16, [], []
    for position, token in enumerate(tokens):
        x = weights["token_embd.weight"][token].tolist()
        normed = np.array(norm(x, block["attn_norm.weight"]))
        q, k, v = (block[f"attn_{part}.weight"] @ normed for part in "qkv")
        for vector in (q, k):
            for first in range(0, len(vector), 2):
                angle = position * 10000.0 ** (-(first % dim) / dim)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                vector[first : first + 2] = turn @ vector[first : first + 2]
        keys.append(k.astype(np.float16).astype(np.float64))
        values.append(v.astype(np.float16).astype(np.float64))
        mixed = np.zeros(heads * dim)
        for head in range(heads):
            own, shared = slice(head * dim, (head + 1) * dim), slice(head // 2 * dim, (head // 2 + 1) * dim)
            scores = np.array([q[own] @ key[shared] / dim**0.5 for key in keys])
            shares = np.exp(scores) / np.exp(scores).sum()
            mixed[own] = sum(share * value[shared] for share, value in zip(shares, values, strict=True))
        x = x + block["attn_output.weight"] @ mixed
        normed = np.array(norm(x.tolist(), block["ffn_norm.weight"]))
        gate, up = block["ffn_gate.weight"] @ normed, block["ffn_up.weight"] @ normed
        x = x + block["ffn_down.weight"] @ (gate / (1 + np.exp(-gate)) * up)
        expected = weights["output.weight"] @ np.array(norm(x.tolist(), weights["output_norm.weight"]))
        assert np.abs(logits[position] - expected).max() < 1e-3  # float16 keys may round the other way
