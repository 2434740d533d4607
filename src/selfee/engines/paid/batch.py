"""An OpenAI-compatible Batch API as a desk: what the journal does not have goes into a file, a file a round.

Batches are cheaper and slower. A chain needs one reply before it can ask for the next: a run is made in rounds. Every
chain goes as far as the journal lets it and leaves one request; the requests go out as one batch; its replies go into
the journal; again. Each step is noted before the next, so that a kill loses no batch and sends none twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selfee.engines.base import ChatRequest, Usage
from selfee.engines.paid.calling import CallFailedError
from selfee.engines.paid.faults import Fault
from selfee.engines.paid.files_api import FilesApi
from selfee.engines.paid.journalled import WaitsForBatchError, open_reply
from selfee.engines.paid.meter import Meter, Reading
from selfee.engines.paid.opening import PaidServer
from selfee.engines.paid.prices import estimate_prompt, estimate_tokens
from selfee.engines.paid.reply import Reply, reply_to_json, request_of
from selfee.engines.wire import finish_reason, parse_complaint, parse_piece, request_body, to_error
from selfee.errors import BadFileError, SelfeeError, StoppedError, UsageError
from selfee.journal import Journal, key_of
from selfee.jsonl import read_jsonl, write_jsonl

SPACE = "batches"
"""Space of the journal's notes that holds every batch under way, by the hash of its file."""

_OVER = ("completed", "failed", "expired", "cancelled")
_MOST_REQUESTS = 50_000
_MOST_BYTES = 150 << 20
_ATTEMPTS = 3  # rounds in which a request may fail
_USUAL = 200  # tokens of a reply, to reckon what a batch will cost


class BatchDesk:
    """A ``Desk`` that gathers what the journal does not have; ``send`` sends it, ``collect`` brings it home.

    ``price_share`` is what of the list price a batch costs. One process at a time: raises UsageError for a second.
    """

    def __init__(self, server: PaidServer, journal: Journal, folder: Path, *, price_share: float = 0.5) -> None:
        self._server = server
        self._journal = journal
        self._folder = folder
        self._share = price_share
        self._lock = threading.Lock()
        self._wanted: dict[str, Mapping[str, Any]] = {}
        self._failures: Counter[str] = Counter()
        self._last: dict[str, Fault] = {}
        self._meter = Meter()
        self._stopped: str | None = None
        self._turn = key_of(["batch run", server.name])
        if not journal.claim(self._turn, "batch run").is_mine:
            raise UsageError(f"{journal.path}: another process sends batches with this journal; wait for its end")
        self._api = FilesApi(server.address, server.keys[0] if server.keys else None, proxy=server.proxy)

    @property
    def num_wanted(self) -> int:
        """Requests that wait to be sent."""
        return len(self._wanted)

    def obtain(self, key: str, asked: Mapping[str, Any]) -> Reply:
        """See ``Desk.obtain``; raises WaitsForBatchError for what the journal does not have."""
        if (stored := self._journal.get(key)) is not None:
            self._meter.replayed()
            return open_reply(stored)
        if self._stopped is not None:
            raise StoppedError(self._stopped)
        with self._lock:
            if self._failures[key] >= _ATTEMPTS:
                raise CallFailedError(self._last[key], self._failures[key])
            self._wanted[key] = asked
        raise WaitsForBatchError("waits for a batch")

    def read(self) -> Reading:
        """See ``Desk.read``."""
        return self._meter.read(spent=self._journal.spent())

    def stop(self, why: str) -> None:
        """See ``Desk.stop``: no further batch is sent; those under way stay, and are found by the next run."""
        self._stopped = self._stopped or why

    def close(self) -> None:
        """Close the sockets."""
        self._journal.release(self._turn)
        self._api.close()

    def send(self) -> int:
        """Send everything wanted; says how many batches that makes. Raises StoppedError at the limit of cost."""
        count = 0
        for part in self._parts():
            if self._stopped is not None:
                raise StoppedError(self._stopped)
            self._check_cost(part)
            label = self._write(part)
            self._submit(label)
            for key in part:
                self._wanted.pop(key, None)
            count += 1
        return count

    def resume(self) -> int:
        """Take up what an earlier run sent, or was about to send; says how many batches there are."""
        labels = [label for label, _ in self._journal.notes(SPACE)]
        for label in labels:
            self._submit(label)
        return len(labels)

    def collect(self, poll: float, tell: Callable[[str], None]) -> None:
        """Wait for every batch under way and store its replies. Raises StoppedError if stopped meanwhile."""
        while labels := [label for label, _ in self._journal.notes(SPACE)]:
            for label in labels:
                note = self._note(label)
                batch = self._api.look(note["batch_id"])
                status = str(batch.get("status"))
                counts = batch.get("request_counts") or {}
                done = f"{counts.get('completed', 0)} of {counts.get('total', note['requests'])}"
                tell(f"batch {note['batch_id']}: {status}, {done} requests done")
                if status in _OVER:
                    self._store(batch, note)
                    self._journal.forget_note(SPACE, label)
                    for path in (Path(note["file"]), _asked_path(Path(note["file"]))):
                        path.unlink(missing_ok=True)
            left = any(True for _ in self._journal.notes(SPACE))
            until = time.monotonic() + poll
            while left and time.monotonic() < until:
                if self._stopped is not None:
                    raise StoppedError(f"{self._stopped}; the batches under way are kept")
                time.sleep(min(0.2, poll))

    def _note(self, label: str) -> dict[str, Any]:
        note = self._journal.read_note(SPACE, label)
        if not isinstance(note, dict):
            raise BadFileError(f"{self._journal.path}: batch {label} is not noted as it should be; expected an object")
        return note

    def _parts(self) -> Iterator[dict[str, Mapping[str, Any]]]:
        part: dict[str, Mapping[str, Any]] = {}
        size = 0
        for key, asked in sorted(self._wanted.items()):
            length = len(json.dumps(asked)) + 500
            if part and (len(part) >= _MOST_REQUESTS or size + length > _MOST_BYTES):
                yield part
                part, size = {}, 0
            part[key] = asked
            size += length
        if part:
            yield part

    def _check_cost(self, part: Mapping[str, Mapping[str, Any]]) -> None:
        most, price = self._server.gate.max_cost, self._server.price
        if most is None or price is None:
            return
        requests = [request_of(asked) for asked in part.values()]
        prompt = sum(estimate_prompt(request) for request in requests)
        reply = sum(min(_USUAL, request.max_tokens or _USUAL) for request in requests)
        cost = self._share * price.of(Usage(prompt, 0, reply, 0.0, 0.0))
        spent = self._journal.spent()
        if spent + cost > most:
            raise StoppedError(
                f"stopped: ${spent:.4f} of --max-cost ${most:.4f} are spent, and the next batch would cost about "
                f"${cost:.4f}"
            )

    def _write(self, part: Mapping[str, Mapping[str, Any]]) -> str:
        """The file of a batch, and the note that it is there."""
        lines = [self._line(key, asked) for key, asked in part.items()]
        text = "".join(f"{line}\n" for line in lines).encode("utf-8")
        label = hashlib.sha256(text).hexdigest()[:24]
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{label}.jsonl"
        path.write_bytes(text)
        write_jsonl(_asked_path(path), ({"key": key, "asked": asked} for key, asked in part.items()))
        # The address of the requests is the first's: a run asks for chats or for completions, not for both.
        endpoint = json.loads(lines[0])["url"]
        note = {"state": "made", "file": str(path), "requests": len(part), "endpoint": endpoint}
        self._journal.note(SPACE, label, note)
        return label

    def _line(self, key: str, asked: Mapping[str, Any]) -> str:
        request = request_of(asked)
        body = request_body(request, self._server.model, request.stop)
        for name in ("stream", "stream_options"):
            body.pop(name, None)
        url = "/v1/chat/completions" if isinstance(request, ChatRequest) else "/v1/completions"
        return json.dumps({"custom_id": key, "method": "POST", "url": url, "body": body})

    def _submit(self, label: str) -> None:
        """From whichever step it stands at, until the server has the batch."""
        note = self._note(label)
        if note["state"] == "made":
            note |= {"state": "uploaded", "file_id": self._api.upload(Path(note["file"]))}
            self._journal.note(SPACE, label, note)
            # What is noted from here on without an id may have been made: it is looked for first.
            batch = self._api.create(note["file_id"], note["endpoint"], label)
        elif note["state"] == "uploaded":
            batch = self._api.find(label) or self._api.create(note["file_id"], note["endpoint"], label)
        else:
            return
        self._journal.note(SPACE, label, note | {"state": "sent", "batch_id": batch["id"]})

    def _store(self, batch: Mapping[str, Any], note: Mapping[str, Any]) -> None:
        """Put every reply of a batch that is over into the journal, and count what failed."""
        asked = {row["key"]: row["asked"] for _, row in read_jsonl(_asked_path(Path(note["file"])))}
        before = Counter(self._failures)
        for name in ("output_file_id", "error_file_id"):
            if batch.get(name):
                for line in self._api.lines(str(batch[name])):
                    self._store_line(line, asked)
        told = json.dumps(batch.get("errors"))[:300] if batch.get("errors") else f"the batch is {batch.get('status')}"
        for key in asked:
            if self._journal.get(key) is None and self._failures[key] == before[key]:
                self._fail(key, Fault("batch", f"no reply came with batch {batch.get('id')}: {told}", may_pass=True))

    def _store_line(self, line: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        key = str(line.get("custom_id"))
        if key not in asked or self._journal.get(key) is not None:
            return
        try:
            reply = self._reply(line, asked[key])
        except SelfeeError as error:
            kind = getattr(error, "kind", "batch")
            self._fail(key, Fault(kind, str(error)[:500], may_pass=True))
            return
        self._journal.put(key, asked[key], reply_to_json(reply), cost=reply.cost)
        self._meter.paid(reply)

    def _reply(self, line: Mapping[str, Any], asked: Mapping[str, Any]) -> Reply:
        where = f"batch: {str(line.get('custom_id'))[:12]}"
        response = line.get("response")
        if not isinstance(response, dict) or response.get("status_code") != 200:
            body = response.get("body") if isinstance(response, dict) else line
            status = response.get("status_code") if isinstance(response, dict) else None
            raise to_error(where, parse_complaint(body, status))
        body = response.get("body") or {}
        piece = parse_piece(body, where)
        request = request_of(asked)
        told = piece.usage or {}
        usage = Usage(
            int(told.get("prompt_tokens") or estimate_prompt(request)),
            0,
            int(told.get("completion_tokens") or estimate_tokens(piece.text)),
            0.0,
            0.0,
            request.params.seed,
        )
        price = self._server.price
        cost = None if price is None else self._share * price.of(usage)
        reason = finish_reason(piece.finish or "", where)
        model = str(body.get("model") or self._server.model)
        return Reply(piece.text, reason, piece.stop, usage, not told, model, 0.0, 1, cost)

    def _fail(self, key: str, fault: Fault) -> None:
        self._failures[key] += 1
        self._last[key] = fault
        self._meter.failed(fault)


def _asked_path(path: Path) -> Path:
    """Where it is kept what the requests of a batch's file were in the journal's words."""
    return path.with_suffix(".asked.jsonl")
