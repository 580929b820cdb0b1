"""``squad-lit COMMAND ...`` is ``python -m squad_lit.COMMAND ...``; alone it lists the commands."""

from __future__ import annotations

import difflib
import os
import runpy
import sys

COMMANDS = {
    "train": "train and test a model, or a sweep of models",
    "check": "read a data set and say what is wrong; rank training images by suspicion",
    "predict": "maps, scores and labels of new images",
    "watch": "judge new images of a folder as they arrive, for months",
    "drift": "say whether scores have left what the calibration saw",
    "calibrate": "choose new thresholds from good parts and known defects",
    "validate": "compare two models, or two files of one, on images",
    "export": "write a model as ONNX, OpenVINO or torch.export file",
    "serve": "a small HTTP service of trained models",
    "view": "a page to look through the images of a test or a prediction",
    "report": "tables and a page from any number of runs",
    "search": "search for options with Optuna",
    "submission": "files for the evaluation server of MVTec AD 2",
    "workspace": "save a W&B workspace for the project's runs",
}


def main() -> int:
    """Entry point of ``squad-lit``; returns the exit status where no command runs."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
        sys.path.insert(0, os.getcwd())  # as python -m has it: a user's own parts lie there
        runpy.run_module(f"squad_lit.{name}", run_name="__main__", alter_sys=True)
        return 0
    lines = [f"  {command:<10} {text}" for command, text in COMMANDS.items()]
    print("\n".join(["usage: squad-lit COMMAND ...\n", *lines, "\nsquad-lit COMMAND --help says more"]))
    if name in ("", "-h", "--help"):
        return 0
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    print(f"error: no command {name!r}" + (f"; did you mean {close[0]}?" if close else ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
