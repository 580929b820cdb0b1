"""How far a sweep is: jobs that wait, run, are done and have failed, and the time that is left."""

from __future__ import annotations

import sys
import time

from squad_lit.run.job import Job
from squad_lit.system.console import say


class Status:
    """Counts the jobs of a sweep and prints a line when the counts change.

    Args:
        total: The number of jobs; at 1 nothing is printed.
        stop_after: The number of failed jobs after which no further one is started; None: all are started.
    """

    def __init__(self, total: int, stop_after: int | None = None) -> None:
        self.total, self.stop_after = total, stop_after
        self.done = self.failed = 0
        self._began: dict[Job, float] = {}
        self._seconds: list[float] = []
        self._told = ""

    @property
    def stopped(self) -> bool:
        """Whether so many jobs have failed that no further one is started."""
        return self.stop_after is not None and self.failed >= self.stop_after

    def start(self, job: Job) -> None:
        """Count a job as running; a second call changes nothing."""
        self._began.setdefault(job, time.monotonic())

    def wait(self, job: Job) -> None:
        """Count a job that ran as waiting again, such as one that was preempted."""
        self._began.pop(job, None)

    def end(self, job: Job, *, skipped: bool = False) -> None:
        """Count a job as done or failed, and say which.

        Args:
            job: The job, with its figures or its error.
            skipped: Whether it was finished before.
        """
        began = self._began.pop(job, None)
        if job.figures is None:
            self.failed += 1
            say(f"{job.name} failed: {job.error}; see {job.folder}", to=sys.stderr)
        else:
            self.done += 1
            if began is not None and not skipped:
                self._seconds.append(time.monotonic() - began)
            end = "was finished before and is skipped" if skipped else "is finished"
            say(f"{job.name} {end}: {job.folder}")

    def tell(self, reason: str = "") -> None:
        """Print the counts and the time left, unless they are those of the last line.

        Args:
            reason: Why jobs wait.
        """
        waiting = self.total - self.done - self.failed - len(self._began)
        counts = {"waiting": waiting, "running": len(self._began), "done": self.done, "failed": self.failed}
        text = ", ".join(f"{count} {name}" for name, count in counts.items())
        text += f" (waiting: {reason})" if reason and waiting else ""
        if self.total == 1 or text == self._told:
            return
        self._told = text
        print(f"sweep: {text}{self._left(waiting)}", flush=True)

    def _left(self, waiting: int) -> str:
        """The time left, by the mean of the jobs that have ended; empty without one."""
        if not self._seconds or not self._began:
            return ""
        mean, now = sum(self._seconds) / len(self._seconds), time.monotonic()
        work = mean * (0 if self.stopped else waiting)
        work += sum(max(mean - (now - began), 0) for began in self._began.values())
        return f"; some {in_words(work / len(self._began))} left"


def in_words(seconds: float) -> str:
    """A duration to one unit.

    Example:
        >>> in_words(42), in_words(600), in_words(9000), in_words(200000)
        ('42 s', '10 min', '2.5 h', '2.3 days')
    """
    for unit, name, digits in ((1, "s", 0), (60, "min", 0), (3600, "h", 1)):
        if seconds < {1: 90, 60: 5400, 3600: 129600}[unit]:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86400:.1f} days"
