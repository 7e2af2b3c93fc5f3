"""``python -m services.gateway``: serve until SIGTERM, then let requests in flight end."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
import time

from services.gateway.settings import Settings
from tailrace import process
from tailrace.errors import InvalidRecord, SettingsError


def main() -> int:
    """Exit code 2 for settings that cannot work."""
    settings = process.start("gateway", Settings)
    # uvicorn raises the signal that ended it once more; this handler takes that one.
    process.stopping()

    # A prompt is one text: handing it to a pool of threads costs more than its tokens.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    import uvicorn

    from services.gateway.build import build

    try:
        gateway, fold = build(settings, now_ms=lambda: time.time_ns() // 1_000_000)
    except (SettingsError, InvalidRecord) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except (sqlite3.Error, OSError) as error:
        print(f"gateway: state_dir {settings.state_dir}: the spool: {error}", file=sys.stderr)
        return 2
    if fold is not None:
        fold.start()
    # Everything up to here stays: a full collection that walks it would hold up requests.
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(
        uvicorn.Config(
            gateway.app(),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.drain_s),
            server_header=False,
        )
    )
    server.run()
    if fold is not None:
        fold.close()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
