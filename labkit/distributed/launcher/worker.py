"""What happens inside a rank that `launch` has started. This module is loaded once, by the server.

The server is a fresh Python that has imported this module, and with it torch, before any thread
was started; it makes each rank by copying itself (fork). So a rank starts in milliseconds, and the
hundreds of megabytes of torch lie in memory once for all ranks. The notebook's own kernel is never
copied: its threads would not come along, and the first of their locks would hang for ever.

A rank leads a process group of its own, and ends with it: nothing it has started outlives it.
"""

import faulthandler
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from multiprocessing import connection, parent_process
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch

from labkit.distributed.launcher import world
from labkit.distributed.launcher.streams import Printer


class Line:
    """The line to the launcher.

    Messages are ("step", …), ("stdout", text), ("stderr", text), ("result",) and ("error", when,
    what, traceback). The launcher answers with "hold" and "go on", and by hanging up.
    """

    def __init__(self, pipe: "connection.Connection[Any, Any]") -> None:
        self.pipe = pipe
        # A pipe takes one writer: a data loader's thread or worker may print in the middle of it.
        self._one_at_a_time = multiprocessing.Lock()
        self._go = threading.Event()
        self._go.set()
        self._told = perf_counter()

    def send(self, *message: Any) -> None:
        """Send a message, from any thread or child; plain numbers and texts only."""
        with self._one_at_a_time:
            self.pipe.send(message)

    def tell(self, *values: Any) -> None:
        """Send a step with the seconds since the last one; stay here while held."""
        self.send("step", *values, perf_counter() - self._told)
        self._go.wait()  # no SIGSTOP: gloo's threads must go on serving ranks that still compute
        self._told = perf_counter()

    def obey(self) -> None:
        """Do what the launcher says, until it is gone.

        If the kernel is killed there is no launcher any more: its end of the pipe closes.
        """
        launcher = parent_process()
        assert launcher is not None
        while self.pipe in connection.wait([launcher.sentinel, self.pipe]):
            try:
                word = self.pipe.recv()
            except (EOFError, OSError):
                return
            if word == "hold":
                self._go.clear()
            else:
                self._go.set()


def run(
    pipe: "connection.Connection[Any, Any]",
    work: bytes,
    environment: dict[str, str],
    threads: int,
    folder: str,
) -> None:
    """Be a rank: call the function, and send steps, prints and the result or the error.

    Args:
        pipe: to the launcher.
        work: the function and its keyword arguments, as cloudpickle packed them.
        environment: the launcher's, and the variables that tell this rank who it is.
        threads: for torch.
        folder: where the ranks meet and leave results; removed when the launcher is gone.
    """
    gc.freeze()  # a collection that walks over the server's objects would copy all their pages
    if "fork" in multiprocessing.get_all_start_methods():
        # Else a data loader's workers would come from a server, to which nothing of a cell travels.
        multiprocessing.set_start_method("fork", force=True)
    line = Line(pipe)
    _leave_with_launcher(line, folder)  # first: from here on nothing can outlive the launcher
    os.environ.clear()  # the server's is of the time when it started
    os.environ.update(environment)
    torch.set_num_threads(threads)
    rank = environment["RANK"]
    _tell_the_stack(Path(folder, f"stack-{rank}"))
    # Python's own objects, not file descriptors 1 and 2: C++ libraries keep the launcher's.
    sys.stdout = printer = Printer(line.send, "stdout")
    sys.stderr = warner = Printer(line.send, "stderr")
    world.listen(line.tell)
    try:
        _work(work, Path(folder, f"result-{rank}"))
        last: tuple[Any, ...] = ("result",)
    except BaseException as error:  # sys.exit as well: it would leave the others waiting
        what = "".join(traceback.format_exception_only(error)).strip()
        last = ("error", monotonic(), f"raised {what}", "".join(_own_frames(error)))
    printer.finish()
    warner.finish()
    line.send(*last)  # the last message, because the launcher closes the pipe upon it
    _end()


def _work(work: bytes, result: Path) -> None:
    import cloudpickle

    function, arguments = cloudpickle.loads(work)
    returned = function(**arguments)
    try:
        with result.open("wb") as file:
            cloudpickle.dump(returned, file)
    except Exception as error:
        kind = type(returned).__name__
        raise TypeError(f"what the function returned ({kind}) cannot be sent: {error}") from None


def _own_frames(error: BaseException) -> Iterable[str]:
    """Return the traceback without the frames of this file."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return traceback.format_exception(type(error), error, frames)


def _leave_with_launcher(line: Line, folder: str) -> None:
    """Take this process, and what it starts, out of the kernel's reach; end when that is gone.

    The kernel's Interrupt goes to its whole process group; here it is the launcher that ends the
    ranks.
    """
    if sys.platform != "win32":
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows, and for whoever sends it to all

    def watch() -> None:
        line.obey()
        shutil.rmtree(folder, ignore_errors=True)  # nobody else is left to do it
        _end()

    threading.Thread(target=watch, name="launcher watch", daemon=True).start()


def _end() -> None:
    """End this process and what it has started, at once: nothing may hang in a destructor.

    gloo's and NCCL's destructors wait for the other ranks, which may be gone. The launcher has all
    that it needs by now, so the exit code says nothing.
    """
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)  # this process leads its group, so it is among them
    os._exit(0)


def _tell_the_stack(path: Path) -> None:
    """Write down where the rank is on SIGUSR1 and when it crashes, also inside C++."""
    file = path.open("w")
    faulthandler.enable(file, all_threads=False)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, file, all_threads=False)
