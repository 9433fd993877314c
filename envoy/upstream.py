#!/usr/bin/env python3
"""The service behind Envoy: answers every request with a JSON description of what arrived.

For demos and tests. Header names are in lower case, in the order of arrival, and a header that came twice is listed
twice, so that nothing that Envoy sent on stays hidden.
"""

import argparse
import json
import socketserver
from http.server import BaseHTTPRequestHandler


class Echo(BaseHTTPRequestHandler):
    """One connection; HTTP/1.1 keeps it open for the next request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name):
        """The base class looks for `do_GET`, `do_POST` and so on: every method gets the same answer."""
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
        """Reads the body away: what stays unread would be taken for the next request."""
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
        """Silent: Envoy writes the access log."""


class Server(socketserver.ThreadingTCPServer):
    # Not http.server's ThreadingHTTPServer: that one asks the DNS for its own name at the start.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description="Answers every request with what arrived, as JSON.")
    parser.add_argument("--port", type=int, default=10080, help="port on 127.0.0.1 (default: %(default)s)")
    with Server(("127.0.0.1", parser.parse_args().port), Echo) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
