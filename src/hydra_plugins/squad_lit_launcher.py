"""Where Hydra looks for launchers; ``hydra/launcher=processes``, ``gpus`` and ``slurm`` name the classes."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf


class ProcessLauncher(BasicLauncher):
    """Runs each training of a sweep in a process of its own; see :func:`squad_lit.run.sweep.launch`.

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
        from squad_lit.run.sweep import launch

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        return launch(self.config, loader, job_overrides, initial_job_idx, self.jobs, self.jobs_per_gpu)


class SlurmLauncher(BasicLauncher):
    """Runs each training of a sweep as a job of SLURM; see :func:`squad_lit.run.sweep.launch_on_slurm`.

    Args:
        options: Those of ``conf/hydra/launcher/slurm.yaml``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See :class:`hydra.plugins.launcher.Launcher`."""
        if getattr(self.task_function, "__module__", None) != "squad_lit.train":
            return super().launch(job_overrides, initial_job_idx)
        from squad_lit.run.sweep import launch_on_slurm

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        return launch_on_slurm(self.config, loader, job_overrides, initial_job_idx, self.options)
