"""New images judged as they arrive in a folder: ``python -m squad_lit.watch FOLDER --checkpoint FILE --output DIR``.

Each image gives a line of JSON on the standard output, a row of ``predictions.csv``, and the files of
``squad_lit.predict``. The command runs until Ctrl-C or SIGTERM, which end it with status 0 after the images at hand; a
second one ends it at once. The same command goes on where any end has left it. It exits with 1 on failure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squad_lit.deploy import model_option
from squad_lit.deploy.drift import RUN_LENGTH, RowMonitor
from squad_lit.deploy.model_file import ModelFile
from squad_lit.deploy.output_folder import add_kinds, kinds
from squad_lit.deploy.watch.watch import Watch
from squad_lit.system.console import exit_status
from squad_lit.system.file import make_folder
from squad_lit.system.lock import hold


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.watch``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; the same command continues")


def _run(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise ValueError(f"no folder {options.folder.absolute()}: name the one that new images are put into")
    monitor = RowMonitor(run_length=options.run_length, defect_rate=options.defect_rate)
    make_folder(options.output)
    with hold(options.output):
        model = ModelFile(options.checkpoint, lambda: model_option.load(options.checkpoint, options))
        print(f"device {model.predictor.runtime.device}\nthreshold {model.predictor.threshold}", file=sys.stderr)
        watch = Watch(
            options.folder,
            options.output,
            model,
            monitor,
            kinds=kinds(options),
            keep=options.keep,
            post=options.post,
            interval=options.interval,
        )
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: _stop(stopping, number))
        try:
            print(f"watching {options.folder.absolute()}", file=sys.stderr, flush=True)
            total = watch.run(stopping)
        finally:
            watch.close()
    print(f"stopped after {total:,} images; the same command continues", file=sys.stderr)
    return 0


def _stop(stopping: threading.Event, number: int) -> None:
    """Stop after the images at hand, and at once when told a second time."""
    stopping.set()
    default: Any = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, default)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit watch", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where new images are put, at any depth")
    checkpoint = "last.ckpt of a run, or an exported file; another one in its place is used from then on"
    parser.add_argument("--checkpoint", type=Path, required=True, help=checkpoint)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    post = "also post each line to this address, again and again until it is taken; the queue is on the disk"
    parser.add_argument("--post", metavar="URL", help=post)
    keep = "rows and files of so many images are kept, and those of older ones removed (default: all are kept)"
    parser.add_argument("--keep", type=int, metavar="N", help=keep)
    add_kinds(parser)
    interval = "between two looks at the folder, and without a change until a file is whole (default: 0.5)"
    parser.add_argument("--interval", type=float, default=0.5, metavar="SECONDS", help=interval)
    defects = "share of defective parts that is usual, so that it is no drift (default: 0)"
    parser.add_argument("--defect-rate", type=float, default=0.0, metavar="SHARE", help=defects)
    length = f"least mean number of normal images before a false report of a drift (default: {RUN_LENGTH:,})"
    parser.add_argument("--run-length", type=float, default=RUN_LENGTH, metavar="N", help=length)
    model_option.add(parser)
    options = parser.parse_args(arguments)
    if options.keep is not None and options.keep < 1:
        parser.error(f"--keep: expected a whole number of at least 1, got {options.keep}")
    if not 0 < options.interval <= 3600:
        parser.error(f"--interval: expected seconds, more than 0 and at most 3600, got {options.interval}")
    return options


if __name__ == "__main__":
    sys.exit(main())
