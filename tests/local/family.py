"""A stand-in for a service that has children of its own, as the engine has vLLM.

``python family.py DEPTH NAME [stubborn] [broken] [--settings FILE]`` starts a child of itself in a
session of its own, that one the next, DEPTH deep; answers /readyz on the metrics port that the file
gives to NAME; ``stubborn`` ones ignore SIGTERM; ``broken`` ends with code 2 at once. Every process
adds its name and pid to the file that PIDS names.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time
import tomllib


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    depth, name, *flags = sys.argv[1:]
    stubborn = "stubborn" in flags
    if "broken" in flags:
        print("a setting is wrong", flush=True)
        sys.exit(2)
    with Path(os.environ["PIDS"]).open("a") as pids:
        pids.write(f"{name} {os.getpid()}\n")
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if int(depth) > 0:
        inherited = ["stubborn"] if stubborn else []
        subprocess.Popen(
            [sys.executable, __file__, str(int(depth) - 1), name, *inherited],
            start_new_session=True,
        )
    if "--settings" in flags:
        settings = tomllib.loads(Path(flags[flags.index("--settings") + 1]).read_text())
        if port := settings[name].get("metrics_port"):
            server = HTTPServer(("127.0.0.1", port), Ready)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    print("up", name, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
