"""Where Hydra looks for launchers; ``hydra/launcher=processes`` and ``gpus`` name the class."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn


class ProcessLauncher(BasicLauncher):
    """Runs each training of a sweep in a process of its own; see :func:`squad_lit.run.launcher.launch`.

    Args:
        jobs: Most jobs side by side; None: as many as there are places on the GPUs.
        jobs_per_gpu: Places on each GPU; None: jobs are bound to none.
    """

    def __init__(self, *, jobs: int | None, jobs_per_gpu: int | None) -> None:
        super().__init__()
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See :class:`hydra.plugins.launcher.Launcher`."""
        if getattr(self.task_function, "__module__", None) != "squad_lit.train":  # such as squad_lit.check
            return super().launch(job_overrides, initial_job_idx)
        # Not above: Hydra imports this file in each of its programs.
        from squad_lit.run.launcher import launch

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        return launch(self.config, loader, job_overrides, initial_job_idx, self.jobs, self.jobs_per_gpu)
