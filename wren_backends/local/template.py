"""The template process of one function version: imports the handler once and forks execution environments.

It is the local counterpart of a SnapStart snapshot. It runs under the function's own Python, isolated (``-I -S``),
and therefore imports nothing but the standard library and what the function would see on AWS: the code, the
layers, and the runtime directory with awslambdaric.

The supervisor is told, one JSON line each: ``{"ready": true}``, then ``{"forked": pid}`` in answer to each request
and ``{"exited": pid, "status": wait status}`` for each environment that ends.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
import warnings
from typing import Any

_PR_SET_PDEATHSIG = 1
# What awslambdaric imports, except its C client: that one reads AWS_LAMBDA_RUNTIME_API as soon as it is loaded,
# so it has to wait for the fork.
_RUNTIME_MODULES = (
    "http.client",
    "traceback",
    "simplejson",
    "snapshot_restore_py",
    "awslambdaric.lambda_config",
    "awslambdaric.lambda_context",
    "awslambdaric.lambda_literals",
    "awslambdaric.lambda_runtime_exception",
    "awslambdaric.lambda_runtime_log_utils",
    "awslambdaric.lambda_runtime_marshaller",
)


def main() -> None:
    """Run the init phase, then fork on request until the supervisor is gone."""
    settings = json.loads(sys.argv[2])
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    sys.argv = ["bootstrap", settings["handler"]]
    sys.path[:] = [*settings["path"], *sys.path]
    os.chdir(settings["code"])
    prctl = _prctl()
    _die_with(settings["parent"], prctl)
    _import_runtime()
    _import_handler(settings)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # fewer pages are copied by the collector in the children
    control.sendall(b'{"ready": true}\n')
    environment = _serve(control, prctl)
    if environment is not None:
        _run_environment(settings, environment)


def _prctl() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


def _die_with(parent: int, prctl: Any) -> None:
    """Have the kernel kill this process when its parent ends; elsewhere than on Linux the sockets tell."""
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def _import_runtime() -> None:
    for name in _RUNTIME_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _import_handler(settings: dict[str, Any]) -> None:
    """Import the handler's module as awslambdaric will do.

    A failure is left to awslambdaric, which meets it again in the first environment and words it as AWS does.
    """
    with contextlib.suppress(Exception):
        importlib.import_module(settings["handler"].rpartition(".")[0].replace("/", "."))
        if settings["snapshot"]:
            from awslambdaric.lambda_runtime_hooks_runner import run_before_snapshot

            run_before_snapshot()


def _serve(control: socket.socket, prctl: Any) -> "dict[str, Any] | None":
    """Return None when the supervisor is gone, or, in a forked child, what its environment is to be."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                os.read(wake_read, 65536)
                _report_exits(control)
                continue
            data, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 1)
            if not data:
                return None
            while not data.endswith(b"\n"):
                data += control.recv(1 << 20)
            parent = os.getpid()
            with warnings.catch_warnings():
                # Python warns of forking with threads; numpy's are made to survive it.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                control.close()
                os.close(wake_read)
                os.close(wake_write)
                _become_environment(parent, prctl, descriptors[0])
                return dict(json.loads(data))
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            os.close(descriptors[0])
            control.sendall(b'{"forked": %d}\n' % pid)


def _report_exits(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.sendall(b'{"exited": %d, "status": %d}\n' % (pid, status))


def _become_environment(parent: int, prctl: Any, output: int) -> None:
    """Leave the template: own process group, own output, and an end when the template ends."""
    _die_with(parent, prctl)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def _run_environment(settings: dict[str, Any], environment: dict[str, Any]) -> None:
    os.environ.update(environment["variables"])
    if "tempfile" in sys.modules:
        vars(sys.modules["tempfile"])["tempdir"] = None  # found out again: TMPDIR is this environment's own now
    os.chdir(settings["code"])
    status = 1
    try:
        if settings["snapshot"]:
            from awslambdaric.lambda_runtime_hooks_runner import run_after_restore

            run_after_restore()
        from awslambdaric import bootstrap
        from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

        client = LambdaRuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
        bootstrap.run(settings["handler"], client)
    except SystemExit as ended:
        code = ended.code
        status = code if isinstance(code, int) else int(code is not None)
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
    except BaseException:  # noqa: BLE001  what escapes here ends the process, as it does on AWS
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
