"""A worker made of FastChat's own base class and routes; only what it says is ours."""

import json
import sys

import uvicorn
from fastchat.conversation import Conversation, SeparatorStyle
from fastchat.serve import base_model_worker
from fastchat.serve.base_model_worker import BaseModelWorker

SAYS = "Blue light is scattered more strongly than red."


class Worker(BaseModelWorker):
    """Says the same to everybody, word by word, as FastChat's workers do: the whole text so far, again and again."""

    def make_conv_template(self, conv_template=None, model_path=None):
        style = SeparatorStyle.ADD_COLON_SINGLE
        return Conversation(name="plain", roles=("USER", "ASSISTANT"), sep_style=style, sep="\n")

    def count_token(self, params):
        return {"count": len(params["prompt"].split()), "error_code": 0}

    def generate_stream_gate(self, params):
        words, before = SAYS.split(" "), params["prompt"] if params.get("echo", True) else ""
        for count in range(1, len(words) + 1):
            row = {"text": before + " ".join(words[:count]), "error_code": 0, "usage": {}, "finish_reason": None}
            if count == len(words):
                row["finish_reason"] = "stop"
            yield json.dumps(row).encode() + b"\0"

    def generate_gate(self, params):
        *_, last = self.generate_stream_gate(params | {"echo": False})
        return json.loads(last[:-1])


controller, port = sys.argv[1], int(sys.argv[2])
worker = Worker(controller, f"http://127.0.0.1:{port}", "w1", "plain", ["plain"], 5)
worker.context_len = 4096
base_model_worker.worker = worker
worker.init_heart_beat()
uvicorn.run(base_model_worker.app, host="127.0.0.1", port=port, log_level="warning")
