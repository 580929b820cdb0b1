"""Saves a W&B workspace that shows runs of ``logger=wandb``: ``python -m squad_lit.workspace --entity NAME``.

Needs ``pip install wandb-workspaces``, a key (``wandb login``) and runs that were uploaded (``wandb sync``). W&B
cannot save a workspace offline.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

# Panels of lines in each section: a regular expression each, because the groups of features are named by the model.
LINES = {
    "losses": ("loss", "feature_.*", "image", "focal", "dice", "adversarial"),
    "codes": ("copy_ratio_.*", "codebook_usage_.*", "perplexity_.*", "feature_error_.*"),
    "training": ("lr_.*", "images_per_second"),
}
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")
LABEL_FREE = ("synthetic_ap", "synthetic_auroc", "normal_score")
PICTURES = ("maps/miss", "maps/false_alarm", "maps/first")


def build(entity: str, project: str) -> Workspace:
    """The workspace, not yet saved.

    Args:
        entity: User or team.
        project: Name of the project, ``logger.wandb.project``.
    """
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, MediaBrowser, WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section, Workspace, WorkspaceSettings

    lines = {
        section: [
            LinePlot(title=name.removesuffix("_.*"), x="step", metric_regex=f"^{section}/{name}$") for name in names
        ]
        for section, names in LINES.items()
    }
    metrics = [
        *(BarPlot(title=name, metrics=[f"metrics/{name}"]) for name in METRICS),
        *(LinePlot(title=name, x="step", y=[f"metrics/{name}"]) for name in LABEL_FREE),
    ]
    maps = [MediaBrowser(media_keys=list(PICTURES), num_columns=1), WeavePanelSummaryTable(table_name="maps/panels")]
    panels = {"metrics": metrics, "maps": maps, **lines}
    return Workspace(
        entity=entity,
        project=project,
        name="squad_lit",
        sections=[Section(name=name, panels=own, is_open=True) for name, own in panels.items()],
        settings=WorkspaceSettings(x_axis="step", group_by_prefix="first"),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.workspace``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m squad_lit.workspace", description="Saves a W&B workspace with the sections of logger=wandb."
    )
    parser.add_argument("--entity", required=True, metavar="NAME", help="user or team")
    parser.add_argument(
        "--project", default="squad_lit", metavar="NAME", help="default: squad_lit, as logger=wandb has"
    )
    options = parser.parse_args(arguments)
    try:
        workspace = build(options.entity, options.project).save()
    except ImportError as error:
        print(f"error: {error}; pip install wandb-workspaces", file=sys.stderr)
        return 1
    except Exception as error:  # of W&B's, which are of many kinds: no key, no connection, no such project
        print(f"error: W&B did not save the workspace: {error}", file=sys.stderr)
        return 1
    print(workspace.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
