"""What Windows and macOS lack is needed by no import."""

import subprocess
import sys

# Only imports of squad_lit's own modules are refused: other packages ask for the system before they import these.
CODE = """
import builtins, importlib, os, pkgutil, signal, sys

posix = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
real = builtins.__import__

def only(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if name.partition(".")[0] in posix and importer.partition(".")[0] in ("squad_lit", "hydra_plugins"):
        raise ModuleNotFoundError(f"No module named {name!r}: {importer} needs it")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = only
import hydra_plugins, squad_lit
names = [module.name for module in pkgutil.walk_packages(squad_lit.__path__, "squad_lit.")]
names += [f"hydra_plugins.{m.name}" for m in pkgutil.iter_modules(hydra_plugins.__path__) if "squad_lit" in m.name]
for package in ("numpy", "PIL", "torch", "lightning", "hydra"):
    importlib.import_module(package)
for module, missing in ((os, ("killpg", "getuid", "geteuid", "fork", "sched_getaffinity", "register_at_fork",
                              "O_NONBLOCK", "O_CLOEXEC", "getpgid", "setsid")), (signal, ("SIGKILL", "SIGHUP"))):
    for name in missing:
        if hasattr(module, name):
            delattr(module, name)
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_without_what_posix_has_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60
