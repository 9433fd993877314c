#!/usr/bin/env python3
"""Demo upstream: answers every request with a JSON description of the request.

For demos and tests. Header names are in lower case and in their order of arrival; a repeated header is listed twice.
"""

import argparse
import json
import socketserver
from http.server import BaseHTTPRequestHandler


class Echo(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name):
        """Handles all methods: the base class looks for `do_GET`, `do_POST` and so on."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        self.skip_body()
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        body = json.dumps({"method": self.command, "path": self.path, "headers": headers}, indent=2) + "\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))  # json.dumps writes ASCII only
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def skip_body(self):
        """Reads the body: unread bytes would be taken for the next request."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    break
                self.rfile.read(size + 2)  # with the line end
            while self.rfile.readline().strip():  # trailers
                pass
        else:
            self.rfile.read(int(self.headers.get("content-length", 0)))

    def log_message(self, format, *args):
        """Logs nothing, as Envoy writes the access log."""


class Server(socketserver.ThreadingTCPServer):
    # http.server's ThreadingHTTPServer looks up its own name by DNS at the start; this one does not.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description="Answers every request with a JSON description of it.")
    parser.add_argument("--port", type=int, default=10080, help="port on 127.0.0.1 (default: %(default)s)")
    with Server(("127.0.0.1", parser.parse_args().port), Echo) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
