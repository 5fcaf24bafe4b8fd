"""Servers that do not run here, by their documented protocol: a toy that echoes, tokenises or batches."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What the toy finds probable after anything, most probable first.
TOYS = (" 12", " 7", " is", " so", " x")
VOCABULARY = {
    text: n for n, text in enumerate((*TOYS, "Question", ":", " What", " plus", " 5", "?", "\n", "Answer"))
}


def words(text):
    return re.findall(r" ?\w+|\W", text)


def log_prob(place, token):
    return -0.3 - 0.7 * TOYS.index(token) - 0.01 * place if token in TOYS else -9.0


def tops(place):
    return {t: log_prob(place, t) for t in TOYS}


class FakeServer:
    """Answers as `routes` say, (method, path) to a function of the JSON body; else as the toy model."""

    def __init__(self, routes=None, *, html=False):
        self.routes, self.html, self.asked = routes or {}, html, []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer("GET", b"")

            def do_POST(self):
                self.answer("POST", self.rfile.read(int(self.headers["content-length"])))

            def answer(self, method, raw):
                fake.asked.append((method, self.path, raw))
                status, text = fake.answer(method, self.path, raw)
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, method, path, raw):
        if self.html:
            return 200, b"<!doctype html><html><body>Welcome</body></html>"
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = raw
        for (verb, pattern), route in self.routes.items():
            if verb == method and re.fullmatch(pattern, path):
                status, said = route(body)
                return status, (said if isinstance(said, str) else json.dumps(said)).encode()
        return 404, b'{"error": {"message": "no such thing"}}'

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def toy_completion(body, *, change=lambda reply: reply):
    """A completion of the toy, OpenAI's older form: `echo`, `prompt_logprobs`, most probable tokens."""
    names = {n: t for t, n in VOCABULARY.items()}
    given = body["prompt"]
    prompt = [names.get(i, "~") for i in given] if isinstance(given, list) else words(given)
    warm = body["temperature"] > 0
    made = [TOYS[(body.get("seed", 0) + k) % 5 if warm else 0] for k in range(max(1, body["max_tokens"]))]
    choice = {"text": "".join(made), "finish_reason": "length", "index": 0}
    if "logprobs" in body:
        shown = [*prompt, *made] if body.get("echo") else made
        start = len(prompt) + len(made) - len(shown)
        values = [log_prob(start + k, t) for k, t in enumerate(shown)]
        choice["logprobs"] = {
            "tokens": shown,
            "token_logprobs": [None if start + k == 0 else v for k, v in enumerate(values)],
            "top_logprobs": [None if start + k == 0 else tops(start + k) for k in range(len(shown))],
        }
    if body.get("prompt_logprobs") is not None and isinstance(given, list):
        choice["prompt_logprobs"] = [None] + [
            {
                str(i): {
                    "logprob": log_prob(k, names.get(i, "~")),
                    "rank": 1 if names.get(i) == TOYS[0] else 2,
                },
                "0": {"logprob": log_prob(k, TOYS[0]), "rank": 1},
            }
            for k, i in enumerate(given)
            if k
        ]
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(made)}
    return 200, change({"model": "toy", "choices": [choice], "usage": usage})


def toy_chat(body):
    text = " ".join(m["content"] for m in body["messages"])
    warm = body["temperature"] > 0
    made = [TOYS[(body.get("seed", 0) + k) % 5 if warm else 0] for k in range(body["max_tokens"])]
    choice = {"message": {"role": "assistant", "content": "".join(made)}, "finish_reason": "length"}
    if body.get("logprobs"):
        top = [{"token": t.strip(), "logprob": v} for t, v in tops(0).items()][: body["top_logprobs"]]
        choice["logprobs"] = {
            "content": [{"token": t.strip(), "logprob": log_prob(0, t), "top_logprobs": top} for t in made]
        }
    usage = {"prompt_tokens": len(words(text)), "completion_tokens": len(made)}
    return 200, {"model": "toy", "choices": [choice], "usage": usage}


MODELS = {("GET", "/v1/models"): lambda _body: (200, {"data": [{"id": "toy", "max_model_len": 512}]})}


def toy_routes(*, tokenizes=False, change=lambda reply: reply):
    routes = {
        **MODELS,
        ("POST", "/v1/completions"): lambda body: toy_completion(body, change=change),
        ("POST", "/v1/chat/completions"): toy_chat,
    }
    if tokenizes:  # as vLLM does: it reads the field "prompt"
        routes["POST", "/tokenize"] = lambda body: (
            (200, {"tokens": [VOCABULARY.get(t, 99) for t in words(body["prompt"])]})
            if "prompt" in body
            else (422, {})
        )
    return routes
