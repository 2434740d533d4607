"""A work log in one sqlite file: what was asked, by the hash of all that was asked, with what came of it.

Crash-safe, resumable, for several threads and processes. Never knows what the questions and answers mean.
"""

from selfee.journal.store import Claim, Entry, Journal, Merged, canonical_json, key_of

__all__ = ["Claim", "Entry", "Journal", "Merged", "canonical_json", "key_of"]
