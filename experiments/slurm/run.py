"""What a sweep does on a SLURM whose jobs are cancelled, preempted, too slow, or whose node drains or is full.

Run as root after ``cluster.sh start DIR 2``: ``SLURM_CONF=DIR/slurm.conf python -m experiments.slurm.run FOLDER``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TINY = "dataset.category=gear dataset.image_size=64 dataset.limit_train=8 model.steps=100 model.validate_every=20"
TINY += " model.pool.refresh_every=20 model.pool.clean_limit=16 model.pool.synthetic=8"
TINY += " threads=1 callback.progress=null logger=none"
SLURM = "hydra/launcher=slurm hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1 hydra.launcher.mem_gb=4"
SLURM += " hydra.launcher.signal_delay_s=20"
# In the place of a training, where only the sweep is looked at.
SHORT = """
import json, pathlib, sys, time
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("hydra.run.dir="))[15:-1])
with (folder / "starts").open("a") as file:
    file.write("x")
time.sleep(float((folder.parent / "seconds").read_text()))
from squad_lit.run.config import compose
from squad_lit.run.job import config_hash
config = compose([a for a in sys.argv[3:] if not a.startswith("hydra")])
(folder / "metrics.json").write_text(json.dumps({"synthetic_ap": 0.5, "run": {"config_hash": config_hash(config)}}))
"""


class Sweep:
    """A sweep in a process, and what it prints."""

    def __init__(self, folder: Path, *overrides: str, seconds: float | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)
        if seconds is not None:
            (folder / "seconds").write_text(str(seconds))
            (folder / "short.py").write_text(SHORT)
            environment["SQUAD_LIT_TRAIN"] = f"{sys.executable} {folder / 'short.py'}"
        command = [sys.executable, "-m", "squad_lit.train", "-m", *SLURM.split(), *overrides]
        self.log = (folder / "terminal.log").open("a+")
        command.append(f"hydra.sweep.dir={folder}")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)

    @property
    def text(self) -> str:
        """What it has printed, and what sweeps in its folder have before."""
        return Path(self.log.name).read_text()

    def end(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(1200)


def until(true: Callable[[], object], seconds: float = 600) -> None:
    """Wait."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def slurm(*command: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def metrics(folder: Path) -> dict[str, float]:
    """The figures that are the same in each run with one seed."""
    found = json.loads((folder / "metrics.json").read_text())
    return {key: found[key] for key in ("image_auroc", "pixel_auroc", "pixel_ap", "synthetic_ap", "normal_score")}


def number(folder: Path) -> str:
    """The number that SLURM gave to a job."""
    return (folder / ".slurm").read_text()


def array(out: Path) -> str:
    """Twenty jobs as one array."""
    sweep = Sweep(out, f"seed={','.join(map(str, range(20)))}", "hydra.launcher.array_parallelism=8", seconds=1)
    status = sweep.end()
    numbers = {number(out / str(i)).partition("_")[0] for i in range(20)}
    done = sum((out / str(i) / "metrics.json").exists() for i in range(20))
    return f"exit status {status}, {done} of 20 jobs done, arrays: {len(numbers)}"


def killed(out: Path) -> str:
    """The sweep's own process is killed, and the same command is given again."""
    sweep = Sweep(out, "seed=0,1,2,3", seconds=150)
    until(lambda: (out / "0" / "starts").exists())
    sweep.process.send_signal(signal.SIGKILL)
    sweep.process.wait()
    again = Sweep(out, "seed=0,1,2,3", seconds=150)
    status = again.end()
    starts = [(out / str(i) / "starts").read_text() for i in range(4)]
    attached = re.findall(r"\d+ jobs are in SLURM's queue already", again.text)
    return f"exit status {status}, starts per job {[len(s) for s in starts]}, {attached}"


def drained(out: Path) -> str:
    """Both nodes drain while a job runs, and come back."""
    sweep = Sweep(out, "seed=0,1,2,3", seconds=5)
    until(lambda: (out / "0" / "starts").exists())
    slurm("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=disk")
    until(lambda: "waiting: " in sweep.text and re.findall("2 done", sweep.text))
    time.sleep(12)
    slurm("scontrol", "update", "nodename=node[1-2]", "state=resume")
    return f"exit status {sweep.end()}; " + " | ".join(re.findall("sweep: .*", sweep.text))


def unavailable(out: Path) -> str:
    """A partition that does not exist."""
    sweep = Sweep(out, "seed=0,1", "hydra.launcher.partition=nowhere", seconds=1)
    return f"exit status {sweep.end()}; {' | '.join(re.findall('error: .*', sweep.text))}"


def training(out: Path, *overrides: str) -> tuple[Sweep, Path]:
    """A sweep of one training that has left its first checkpoint."""
    sweep = Sweep(out, *TINY.split(), *overrides)
    until(lambda: (out / "0" / "last.ckpt").exists() or sweep.process.poll() is not None)
    return sweep, out / "0"


def cancelled(out: Path) -> str:
    """A job is cancelled, and the same command is given again."""
    sweep, job = training(out)
    slurm("scancel", number(job))
    first = sweep.end()
    again = Sweep(out, *TINY.split())
    status = again.end()
    return f"exit status {first}, again {status}; {_log(out)}; {metrics(job)}"


def preempted(out: Path) -> str:
    """A partition with a higher priority takes both nodes."""
    sweep, job = training(out)
    slurm("sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap", "sleep 5")
    status = sweep.end()
    return f"exit status {status}; {_log(out)}; {' | '.join(re.findall('sweep: .*', sweep.text))}; {metrics(job)}"


def timed_out(out: Path) -> str:
    """A training of several minutes, with a time limit of two."""
    sweep, job = training(out, "hydra.launcher.timeout_min=2", "hydra.launcher.max_num_timeout=20", "model.steps=600")
    return f"exit status {sweep.end()}; {_log(out)}; {metrics(job)}"


def out_of_time(out: Path) -> str:
    """The same, but it may run out of time once."""
    sweep, _ = training(out, "hydra.launcher.timeout_min=2", "hydra.launcher.max_num_timeout=0", "model.steps=2000")
    return f"exit status {sweep.end()}; {_log(out)}; {re.findall('  job 0: .*', sweep.text)}"


def nodes(out: Path) -> str:
    """One training on both nodes, a process with gloo on each, that is stopped once."""
    options = ("trainer=nodes", "trainer.accelerator=cpu")
    sweep, job = training(out, *options)
    slurm("scancel", number(job))
    first = sweep.end()
    again = Sweep(out, *TINY.split(), *options)
    return f"exit status {first}, again {again.end()}; {_log(out)}; {metrics(job)}"


def _log(out: Path) -> list[str]:
    """Lines of SLURM's own output that say how a job ended and went on."""
    said = "".join(path.read_text() for path in sorted(out.glob(".submitit/*/*_log.*")))
    return re.findall(r"stopped at step \d+ of \d+|goes on from its last.ckpt|Requeued job|this job is [\w-]+", said)


def full(out: Path) -> str:
    """The disk of SLURM's controller is full: it takes no job."""
    state = re.search(r"StateSaveLocation\s*=\s*(\S+)", slurm("scontrol", "show", "config"))
    assert state is not None
    spool = Path(state[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], check=True)
    try:
        with (spool / "filler").open("wb") as file, contextlib.suppress(OSError):
            file.write(bytes(2**20))
        sweep = Sweep(out, "seed=0,1", seconds=1)
        return f"exit status {sweep.end()}; {' | '.join(re.findall('error: .*', sweep.text))}"
    finally:
        subprocess.run(["umount", str(spool)], check=True)


def main() -> None:
    """Run what is named after the folder, or all."""
    out = Path(sys.argv[1]).absolute()
    acts = (array, killed, drained, unavailable, full, cancelled, preempted, timed_out, out_of_time, nodes)
    for act in acts:
        if not sys.argv[2:] or act.__name__ in sys.argv[2:]:
            print(f"{act.__name__}: {act(out / act.__name__)}", flush=True)


if __name__ == "__main__":
    main()
