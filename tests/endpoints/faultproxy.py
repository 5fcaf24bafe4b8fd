"""A proxy between client and server that fails on purpose, and counts."""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultProxy:
    """Forwards to `upstream`.

    `before(n, body)` may give (status, headers, text), `after(body, reply)` another reply; `faults` are the
    chances of "503", "reset" and "truncated", drawn from a seed.
    """

    def __init__(self, upstream, *, faults=None, seed=0, before=None, after=None, on_request=None):
        self.upstream = urlsplit(upstream)
        self.faults, self.before, self.after, self.on_request = faults or {}, before, after, on_request
        self.rng, self.lock = random.Random(seed), threading.Lock()  # noqa: S311 - faults, drawn anew alike
        self.sent = self.in_flight = self.most_in_flight = 0
        self.bodies, self.headers, self.generated, self.failed = [], [], Counter(), Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(*proxy.forward("GET", self.path, None))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.endswith("completions"):
                    proxy.paid(self, json.loads(body), body)
                else:
                    self.answer(*proxy.forward("POST", self.path, body))

            def answer(self, status, text, headers=(), *, declared=None):
                self.send_response(status)
                kind = "application/json" if text[:1] in b"{[" else "text/html"
                for name, value in [("content-type", kind), *dict(headers).items()]:
                    self.send_header(name, value)
                self.send_header("content-length", str(declared or len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def forward(self, method, path, body):
        link = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=300)
        try:
            link.request(method, path, body, {"content-type": "application/json", "connection": "close"})
            reply = link.getresponse()
            return reply.status, reply.read()
        finally:
            link.close()

    def paid(self, handler, body, raw):
        with self.lock:
            self.sent += 1
            n = self.sent
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            draw, fault, so_far = self.rng.random(), None, 0.0
            for name, chance in self.faults.items():
                so_far += chance
                fault = fault or (name if draw < so_far else None)
            self.failed[fault] += fault is not None
        try:
            if self.on_request:
                self.on_request(n)
            refused = self.before(n, body) if self.before else None
            if fault == "503":
                refused = (503, {}, '{"error": {"message": "busy"}}')
            if refused:
                return handler.answer(refused[0], refused[2].encode(), refused[1])
            if fault == "reset":
                return self.cut(handler)
            status, text = self.forward("POST", handler.path, raw)
            with self.lock:
                self.generated[raw] += status == 200
            if self.after and status == 200:
                text = json.dumps(self.after(body, json.loads(text))).encode()
            if fault == "truncated":
                handler.answer(status, text[: len(text) // 2], declared=len(text))
                return self.cut(handler)
            return handler.answer(status, text)
        except (BrokenPipeError, ConnectionResetError):
            return None  # the client is gone
        finally:
            with self.lock:
                self.in_flight -= 1

    def cut(self, handler):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Bucket:
    """Rejects (429) what comes faster than so many a second."""

    def __init__(self, rate, *, headers):
        self.rate, self.headers, self.room, self.at, self.rejected = rate, headers, 1.0, time.monotonic(), 0

    def __call__(self, _n, _body):
        now = time.monotonic()
        self.room = min(1.0, self.room + (now - self.at) * self.rate)
        self.at = now
        if self.room < 1.0:
            self.rejected += 1
            return 429, self.headers, '{"error": {"message": "slow down", "type": "rate_limit"}}'
        self.room -= 1.0
        return None
