"""What MkDocs does beyond the pages in this folder.

It writes the reference of all options from the files in ``conf/`` and their comments, adds what was measured
(``experiments/``) to the site, and refuses a page that loads something from another host.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
# What is loaded with a page, and not only linked to.
_LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
# A line of a defaults list: group and choice, or the name of another file of the group; and its comment.
_DEFAULT = re.compile(r"^  - (?:override )?/?([\w/]+)(?:@\w+)?(?:: *(\S+))? *(?:# *(.*))?$", re.MULTILINE)
_HEAD = """# Options

Every option of `squad-lit train`, as it is typed, with its default. `squad-lit check` and `squad-lit search` take the
same ones. This page is made from the files in `conf/`: `conf/GROUP/NAME.yaml` is what `GROUP=NAME` chooses, and
`${...}` stands for the value of another option. Commands with options of their own (`predict`, `watch`, `drift`,
`calibrate`, `validate`, `serve`, `export`, `view`, `report`, `search`, `submission`) list them with `--help`.
"""


class Option(NamedTuple):
    """An option, as it is typed, with its default and its comment as the file has them."""

    name: str
    default: str
    comment: str


def options(path: Path) -> list[Option]:
    """The options of a file of ``conf/``, in its order; the name of a branch has a row if it has a comment."""
    text = path.read_text(encoding="utf-8")
    folder = path.parent.relative_to(CONF).parts
    package = [] if "@package _global_" in text else list(folder)
    node = yaml.compose(text)
    return list(_walk(node, package, text.splitlines())) if isinstance(node, yaml.MappingNode) else []


def _walk(node: yaml.MappingNode, names: Sequence[str], lines: Sequence[str]) -> Iterator[Option]:
    for key, value in node.value:
        if key.value in ("_target_", "_partial_", "defaults"):  # what is made, and of what the file is composed
            continue
        name = ".".join([*names, key.value]).removeprefix("hydra.sweeper.params.")
        is_branch = isinstance(value, yaml.MappingNode) and not value.flow_style
        end = key.end_mark if is_branch else value.end_mark
        _, _, comment = lines[end.line][end.column :].partition("#")
        default = "" if is_branch else lines[end.line][value.start_mark.column : end.column]
        if comment or not is_branch:
            yield Option(name, default, comment.strip())
        if is_branch:
            yield from _walk(value, [*names, key.value], lines)


def _intro(path: Path) -> list[str]:
    """The comment at the top of a file, what it starts from, what it chooses and what it makes."""
    text = path.read_text(encoding="utf-8")
    lines = [line.removeprefix("#").strip() for line in re.match(r"(?:#.*\n)*", text)[0].splitlines()]
    found = [*(_escaped(line) for line in lines if not line.startswith("@")), ""]
    for group, choice, comment in _DEFAULT.findall(text):
        start = f"Chooses `{group}={choice}`" if choice else f"Starts from `{group}`"
        if group != "_self_":
            found.append(f"{start}, {_escaped(comment)}." if comment else f"{start}.")
    content = yaml.safe_load(text) or {}
    if "_target_" in content:
        found.append(f"Makes `{content['_target_']}`.")
    return found


def page() -> str:
    """The reference of all options, as Markdown."""
    start = CONF / "train.yaml"
    parts = [_HEAD, "## Top level\n", _table(options(start))]
    texts = [path.read_text(encoding="utf-8") for path in (start, CONF / "launcher.yaml")]
    groups = [found for text in texts for found in _DEFAULT.findall(text) if found[1]]
    parts += ["Groups, and what they are by default:\n", _table([Option(f"{g}=", d, c) for g, d, c in groups])]
    for group in dict.fromkeys([*(name for name, *_ in groups), "hydra/launcher"]):
        parts.append(f"## {group}\n")
        for path in sorted((CONF / group).rglob("*.yaml"), key=lambda p: (p.stem != "default", p)):
            parts.append(f"### `{group}={path.relative_to(CONF / group).with_suffix('').as_posix()}`\n")
            parts.append("\n".join(_intro(path)) + "\n")
            found = [o for o in options(path) if o.name != "hydra.mode"]
            parts.append(_table(found) if found else "")
    return "\n".join(parts)


def _table(rows: Sequence[Option]) -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, default, comment in rows:
        lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {_escaped(comment)} |")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return re.sub(r"(https?://[^\s,;]+)", r"<\1>", html.escape(text, quote=False)).replace("|", "\\|")


class Roles(griffe.Extension):
    """Shows Sphinx's roles in docstrings, such as ``:func:`name```, as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r":[a-z]+:`[~.]?([^`]+)`", r"`\1`", obj.docstring.value)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere or nowhere."""
    files.append(File.generated(config, "reference/options.md", content=page()))
    for path in sorted((ROOT / "experiments").rglob("*")):
        if path.name == "README.md" or path.suffix == ".png":
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Refuses what would be loaded from another host."""
    for path in Path(config.site_dir).rglob("*.html"):
        if found := _LOADED.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path} loads {found[0]}: put the file into docs/ instead")
