"""Reads configuration files that anyone may have written: none of them hangs a command or fills the memory."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from squad_lit.system.file import regular

_LARGEST = 10**6  # bytes
_MOST = 10**5  # values, where each alias counts as all that it stands for


def read_config(path: Path) -> DictConfig:
    """The configuration that a run has written.

    Raises:
        ValueError: The file is damaged or holds no configuration.
    """
    found = read_yaml(path)
    if not isinstance(found, DictConfig) or not found:
        raise ValueError(f"{path} is no configuration: expected keys with values, got {found or 'an empty file'}")
    return found


def read_yaml(path: Path) -> DictConfig | ListConfig:
    """The content of a file of keys with values, or of a list.

    Raises:
        ValueError: It is damaged, or stands for more than a configuration has.
    """
    check_yaml(path)
    try:
        return OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path} is damaged: {error.problem}{where}") from None
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deeply") from None
    except (ValueError, OSError, yaml.YAMLError) as error:  # OSError: a number alone, for OmegaConf
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def check_yaml(path: Path) -> None:
    """Refuse a file that is too large, or whose aliases of aliases stand for too much; each level doubles them.

    Raises:
        OSError: It is no file, such as a named pipe.
        ValueError: It is such a file.
    """
    if regular(path).stat().st_size > _LARGEST:
        raise ValueError(f"{path} is no configuration: it has more than {_LARGEST // 10**6} MB")
    text = path.read_text(encoding="utf-8", errors="replace")
    if "&" not in text or "*" not in text:
        return
    try:
        most = _count(yaml.compose(text, yaml.SafeLoader), {})
    except (yaml.YAMLError, RecursionError):  # told where it is read; a value that contains itself is in infinite depth
        return
    if most > _MOST:
        raise ValueError(f"{path} is no configuration: with its aliases it has more than {_MOST} values")


def _count(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values a node stands for; what an alias refers to is looked at once."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in inner)
    return known[id(node)]
