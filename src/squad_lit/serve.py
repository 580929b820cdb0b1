"""A small HTTP service of trained models: ``python -m squad_lit.serve --checkpoint FILE``.

``POST /predict`` judges one or many images, ``/health`` says whether the service works, ``/metrics`` has figures for
Prometheus, and ``/`` is a page to drop images on. No other computer reaches it unless ``--host`` says so. Ctrl-C or
SIGTERM lets it answer what it has, and ends it with the status 0; a failure has the status 1.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.deploy import model_option
from squad_lit.system.console import exit_status, say
from squad_lit.system.package import require

# Packages of the extra serve, none of which an exported file needs.
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.serve``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="stopped")


def _run(options: argparse.Namespace) -> int:
    for package in _PACKAGES:
        require(package)
    import uvicorn

    from squad_lit.deploy.serve.service import Limits, make_app

    files = _named(options.checkpoint)
    token = _read_token(options.token_file)
    models = {name: model_option.load(path, options) for name, path in files.items()}
    limits = Limits(options.max_megabytes, options.max_megapixels, options.timeout, options.max_images)
    app = make_app(models, limits, token)
    listening = _listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    for name, model in models.items():
        say(f"{name}: device {model.runtime.device}\n  threshold {model.threshold}")
    if not ipaddress.ip_address(host).is_loopback and token is None:
        print(f"warning: whoever reaches {host} can use this service; --token-file asks for a token", file=sys.stderr)
    print(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=round(options.timeout) + 1
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn stops, and raises the signal once more
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    print("stopped")
    return 0


def _named(given: Sequence[str]) -> dict[str, Path]:
    """The files of models by name: ``NAME=FILE``, or a file whose name without the ending is that of the model."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        path = Path(text) if Path(text).exists() or not equals else Path(file)
        name = path.stem if path == Path(text) else name
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(
                f"--checkpoint {text}: the name {name!r} of the model is part of addresses, so it may have letters, "
                f"digits, '.', '_' and '-'; name it by --checkpoint NAME=FILE"
            )
        if name in found:
            raise ValueError(f"--checkpoint: two models are called {name}; name them by --checkpoint NAME=FILE")
        found[name] = path
    return found


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OSError(f"--token-file {path}: {error.strerror}") from error
    if not token:
        raise ValueError(f"--token-file {path} is empty; expected the token on one line")
    return token


def _listen(host: str, port: int) -> socket.socket:
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=kind, backlog=2048)
        # Connections inherit it. Without, an answer on a kept connection waits 40 ms for the client's acknowledgement;
        # asyncio sets it on sockets that it has made itself.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error.strerror}") from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit serve", description=(__doc__ or "").split("\n")[0])
    checkpoint = (
        "an exported file, or last.ckpt of a run; several models are [NAME=]FILE, and each is asked for by name"
    )
    parser.add_argument("--checkpoint", nargs="+", required=True, metavar="[NAME=]FILE", help=checkpoint)
    host = "address to listen on; 0.0.0.0 is each of this computer (default: 127.0.0.1, which only it reaches)"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 is any that is free")
    token = "file with a token, which clients have to send as Authorization: Bearer TOKEN"
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=token)
    model_option.add(parser)
    for name, value, text in (
        ("max-megabytes", 64.0, "largest body of a request"),
        ("max-megapixels", 64.0, "largest image"),
        ("timeout", 30.0, "seconds that a request may take"),
        ("max-images", 256, "most images that wait or are judged at a time"),
    ):
        parser.add_argument(
            f"--{name}", type=type(value), default=value, metavar="N", help=f"{text} (default: {value:g})"
        )
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port: expected 0 to 65535, got {options.port}")
    for name in ("max_megabytes", "max_megapixels", "timeout", "max_images"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(options, name)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
