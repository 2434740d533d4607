"""Every flag of llama.cpp's ``main`` of June 2023 (2d43387): its default there, and the tests that prove ours.

``python -m tests.cli.main_flags`` writes docs/reference/main-flags.md; ``test_main_flags.py`` checks that the table has
every flag, that every test exists and speaks of the flag, and that the defaults are these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfee.cli.main2023.flags import FLAGS, Flag

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "main-flags.md"

LOOP, STORY, FLAGS_FILE = "test_main2023_loop.py", "test_main_story.py", "test_main_flags.py"

AS_DEFAULT = f"{FLAGS_FILE}::test_a_value_that_is_the_default_changes_nothing"
SAMPLER = f"{STORY}::test_tokens_are_those_of_our_own_sampler_at_the_same_settings"
IDLE = f"{STORY}::test_what_has_no_effect_is_told_and_goes_on"
REFUSED = f"{STORY}::test_what_cannot_be_says_what_to_do_instead"


@dataclass(frozen=True)
class Proof:
    """A flag's default in June 2023, as it would be typed ("" = off or empty), and the tests that prove it here."""

    default: str
    tests: tuple[str, ...]


def _proofs() -> dict[str, Proof]:
    def by(default: str, *tests: str) -> Proof:
        return Proof(default, tests)

    return {
        "--help": by("", f"{FLAGS_FILE}::test_the_help_lists_every_flag"),
        "--model": by("models/7B/ggml-model.bin", f"{FLAGS_FILE}::test_the_model_of_2023_is_taken_where_it_lies"),
        "--prompt": by("", f"{STORY}::test_the_published_command_line_runs_as_printed"),
        "--file": by("", f"{STORY}::test_a_file_loses_one_line_break_and_keeps_its_backslashes"),
        "--escape": by("", f"{FLAGS_FILE}::test_escapes_are_read_where_they_are_wished"),
        "--no-escape": by("", f"{FLAGS_FILE}::test_escapes_are_read_where_they_are_wished"),
        "--n-predict": by("-1", AS_DEFAULT, f"{LOOP}::test_so_many_tokens_and_no_more"),
        "--ctx-size": by("512", AS_DEFAULT, f"{FLAGS_FILE}::test_the_context_is_as_large_as_asked_for"),
        "--keep": by("0", AS_DEFAULT, _SWAP),
        "--batch-size": by("512", AS_DEFAULT, f"{FLAGS_FILE}::test_threads_and_batches_change_no_text"),
        "--threads": by("", f"{FLAGS_FILE}::test_threads_and_batches_change_no_text"),
        "--seed": by("-1", f"{FLAGS_FILE}::test_a_seed_gives_the_same_text_and_none_another_each_time"),
        "--interactive": by("", f"{FLAGS_FILE}::test_a_person_takes_turns"),
        "--interactive-first": by("", f"{FLAGS_FILE}::test_a_person_may_begin"),
        "--instruct": by("", f"{STORY}::test_the_published_chat_line_chats"),
        "--multiline-input": by("", f"{FLAGS_FILE}::test_an_entry_may_go_on_over_line_ends"),
        "--reverse-prompt": by("", f"{FLAGS_FILE}::test_a_reverse_prompt_ends_the_text", f"{LOOP}::{_REVERSE}"),
        "--in-prefix": by("", f"{FLAGS_FILE}::test_a_person_takes_turns"),
        "--in-suffix": by("", f"{FLAGS_FILE}::test_a_person_takes_turns"),
        "--color": by("", f"{STORY}::test_compat_2023_has_colour_into_pipes_and_no_escapes"),
        "--random-prompt": by("", f"{STORY}::test_tokens_words_and_memory_can_be_shown"),
        "--verbose-prompt": by("", f"{STORY}::test_tokens_words_and_memory_can_be_shown"),
        "--prompt-cache": by("", _CACHE),
        "--prompt-cache-all": by("", _CACHE),
        "--prompt-cache-ro": by("", _CACHE),
        "--temp": by("0.8", AS_DEFAULT, SAMPLER),
        "--top-k": by("40", AS_DEFAULT, SAMPLER),
        "--top-p": by("0.95", AS_DEFAULT, SAMPLER),
        "--tfs": by("1.0", AS_DEFAULT, SAMPLER),
        "--typical": by("1.0", AS_DEFAULT, SAMPLER),
        "--repeat-last-n": by("64", AS_DEFAULT, SAMPLER),
        "--repeat-penalty": by("1.1", AS_DEFAULT, _TRAINED),
        "--presence-penalty": by("0.0", AS_DEFAULT, SAMPLER),
        "--frequency-penalty": by("0.0", AS_DEFAULT, SAMPLER),
        "--no-penalize-nl": by("", SAMPLER),
        "--mirostat": by("0", AS_DEFAULT, SAMPLER),
        "--mirostat-lr": by("0.1", AS_DEFAULT, SAMPLER),
        "--mirostat-ent": by("5.0", AS_DEFAULT, SAMPLER),
        "--logit-bias": by("", SAMPLER),
        "--ignore-eos": by("", SAMPLER),
        "--mtest": by("", f"{STORY}::test_tokens_words_and_memory_can_be_shown"),
        "--compat": by("", f"{STORY}::test_a_prompt_too_long_is_code_1_and_so_is_everything_with_compat"),
        "--n-gpu-layers": by("0", IDLE),
        "--memory-f32": by("", IDLE),
        "--mlock": by("", IDLE),
        "--no-mmap": by("", IDLE),
        "--alias": by("", IDLE),
        "--low-vram": by("", IDLE),
        "--main-gpu": by("0", IDLE),
        "--tensor-split": by("", IDLE),
        "--perplexity": by("", REFUSED),
        "--embedding": by("", REFUSED),
        "--lora": by("", REFUSED),
        "--lora-base": by("", REFUSED),
        "--export": by("", REFUSED),
        "--host": by("", REFUSED),
        "--port": by("", REFUSED),
    }


_REVERSE = "test_a_reverse_prompt_is_found_inside_a_token_with_more_behind"
_SWAP = f"{LOOP}::test_a_full_context_keeps_its_beginning_and_reads_half_of_the_rest_again"
_TRAINED = f"{STORY}::test_a_trained_model_writes_what_it_wrote_with_another_program"
_CACHE = f"{STORY}::test_the_prompt_cache_gives_the_same_text_and_reads_less"
PROOFS: Mapping[str, Proof] = _proofs()

OURS = ("--no-escape", "--compat", "--prompt-cache-ro")
"""Flags that ``main`` of 2d43387 did not have."""

HELP = Flag(("-h", "--help"), "Show all flags.")
ALL = (HELP, *FLAGS)


def key_of(flag: Flag) -> str:
    """The name under which a flag stands in ``PROOFS``: its first long one."""
    return next((name for name in flag.names if name.startswith("--")), flag.names[0])


def render() -> str:
    """The page."""
    count = sum(len(flag.names) for flag in ALL if key_of(flag) not in OURS)
    lines = [
        "# Every flag of llama.cpp's main of June 2023",
        "",
        f"Made by `python -m tests.cli.main_flags` from the table that `selfee main` parses with: {count} names, as of",
        "commit 2d43387. A test checks that no flag is missing, that every test named here exists and speaks of its",
        "flag, and that the defaults are those of June 2023. Tests lie in `tests/cli/`.",
        "",
        "| flag | default in June 2023 | here | proved by |",
        "|---|---|---|---|",
    ]
    for flag in ALL:
        proof = PROOFS[key_of(flag)]
        names = ", ".join(f"`{name}`" for name in flag.names)
        here = f"told, no effect: {flag.no_effect}" if flag.no_effect else "works"
        if flag.refused:
            here = "an error that names another way"
        if key_of(flag) in OURS:
            here = "works; not in 2d43387"
        tests = "<br>".join(f"`{name.partition('::')[2]}`" for name in proof.tests)
        lines.append(f"| {names} | {proof.default} | {here} | {tests} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
