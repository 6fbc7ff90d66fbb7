"""Serves a trained model over HTTP; learns of what users do while it runs.

    python -m recjax.serve --model=runs/shop --port=8000 --store=events.sqlite
    python -m recjax.serve --model=runs/shop --store=redis://localhost:6379/0

The page is at http://127.0.0.1:8000/, the description of the interface at /docs.
On SIGTERM it answers the requests in progress and exits.
It needs: pip install 'recjax[serve]'.
"""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from recjax.command import make_parser, run_command
from recjax.common.errors import UserError
from recjax.common.files import read_bytes, user_path
from recjax.runtime.host_memory import restart_with_settings

TOKEN = "RECJAX_TOKEN"
BACKLOG = 2048  # connections that wait, as in uvicorn


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and serves."""
    parser = make_parser("serve", __doc__)
    parser.add_argument("--port", type=int, default=8000, help="port (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address (127.0.0.1)")
    parser.add_argument(
        "--store", default="events.sqlite", help="SQLite file, or redis://HOST:PORT/DB"
    )
    parser.add_argument("--spare", type=int, help="room for new items (5%%)")
    parser.add_argument(
        "--token_file",
        help=f"file with a bearer token that requests need; or the variable {TOKEN}",
    )
    parser.add_argument("--no_reload", action="store_true", help="refuse POST /reload")
    run_command(parser, serve, argv)


def serve(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: options out of range, or as `run_service`.
    """
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port: {options.port} is not a port")
    if options.spare is not None and options.spare < 0:
        raise UserError(f"--spare: {options.spare} is negative")
    token = os.environ.get(TOKEN, "")
    if options.token_file:
        path = user_path(options.token_file, "--token_file")
        token = read_bytes(path).decode("utf-8", "replace").strip()
        if not token:
            raise UserError(f"--token_file: {path}: is empty")
    with listen(options.host, options.port) as listener:
        run_service(options, token, listener)


def run_service(options: Any, token: str, listener: socket.socket) -> None:
    """Serves on a port until a signal comes.

    Raises:
      UserError: a model or store that cannot be opened, or a library that is missing.
    """
    try:
        import uvicorn

        from recjax.serving.app import make_app
        from recjax.serving.metrics import Metrics
    except ImportError as e:
        raise UserError(
            f"serve: needs the library {e.name}: pip install 'recjax[serve]'"
        ) from None
    from recjax.serving.open_store import open_store
    from recjax.serving.service import Service
    from recjax.serving.store import StoreError

    store, metrics = open_store(options.store, "--store"), Metrics()
    try:
        service = Service(options.model, store, options.spare, metrics.batch)
    except StoreError as e:
        raise UserError(f"--store: {e}") from None
    metrics.model(service.engine.version)
    app = make_app(service, metrics, token, not options.no_reload)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(
        f"ready: {len(service.live):,} items, model {service.engine.version}\n"
        f"page:  http://{host}:{listener.getsockname()[1]}/",
        flush=True,
    )
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(settings)
    server.run([listener])
    if not server.started:
        service.close()
        sys.exit(2)


def listen(host: str, port: int) -> socket.socket:
    """Opens the port; clients that come before the model is loaded wait.

    Raises:
      UserError: the address is not one of this machine, or the port is in use.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as e:
        in_use = e.errno in (errno.EADDRINUSE, errno.EACCES)
        option, reason = "--port", os.strerror(e.errno or 0)
        if not in_use:  # names that cannot be resolved have no number of an error
            option, reason = "--host", str(e)
        raise UserError(f"{option}: {host}:{port}: {reason}") from None


if __name__ == "__main__":
    restart_with_settings()
    main()
