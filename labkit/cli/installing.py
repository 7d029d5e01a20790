"""What `make` asks before it installs: can PyTorch be had for this machine, and which build of it?

It runs by itself, with any Python and nothing installed: `python -I labkit/cli/installing.py`.
PyPI's PyTorch for Linux carries CUDA and takes 5 GB of disk; the build for CPUs takes a fraction of
it, but lies in an index of PyTorch's own, which a firewall may close.
"""

import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from threading import Thread
from urllib.request import urlopen

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 4.0
"""That the index has for its answer."""


def refusal(system: str, machine: str, bits: int, libc: str) -> str:
    """Return why PyTorch cannot be installed, or "".

    Args:
        system: such as "Linux", as `platform.system` says it.
        machine: such as "x86_64".
        bits: of a pointer, in the Python that is to run it.
        libc: contains "musl" where the C library is that of Alpine Linux.
    """
    if bits < 64:
        return "PyTorch has no build for 32 bits: labkit needs a 64-bit Python on a 64-bit system."
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch is no longer built for Macs with an Intel processor: take the lab on Binder "
            "(see README.md) or on Linux. If this Mac has Apple silicon, its Python is one for "
            "Intel: install one for arm64."
        )
    if "musl" in libc:
        return "PyTorch has no build for musl (Alpine Linux): take a system with glibc, as Debian."
    if machine.lower() not in {"x86_64", "amd64", "aarch64", "arm64"}:
        return f"PyTorch has no build for {machine}: labkit needs x86-64 or 64-bit ARM."
    return ""


def has_nvidia_gpu() -> bool:
    """Say whether NVIDIA's driver lists a GPU; without the driver no PyTorch can use one."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def answers(index: str, seconds: float = SECONDS) -> bool:
    """Say whether an index shows its page of torch within so many seconds.

    A thread asks, because looking up a name knows no time limit.
    """
    found: list[bool] = []

    def ask() -> None:
        with (
            suppress(OSError, HTTPException, ValueError),
            urlopen(f"{index.rstrip('/')}/torch/", timeout=seconds) as page,
        ):
            found.append(page.status == 200)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return any(found)


def words_for_pip(
    system: str, index: str, has_gpu: Callable[[], bool], answers: Callable[[str], bool]
) -> tuple[str, str]:
    """Return the words that make pip take the right build of PyTorch, and a sentence that says so.

    Args:
        system: as for `refusal`; only Linux has the choice.
        index: of the builds for CPUs.
        has_gpu: whether there is an NVIDIA GPU.
        answers: whether an index answers.
    """
    if system != "Linux":
        return "", ""
    if has_gpu():
        return "", "there is an NVIDIA GPU: taking PyPI's PyTorch, which is built for CUDA"
    if answers(index):
        return f"--extra-index-url {index}", "taking PyTorch's build for CPUs"
    return "", f"{index} does not answer: taking PyPI's PyTorch, 5 GB with CUDA"


def main(words: list[str]) -> int:
    """Do what `make` asks: "check" refuses a machine, "words" prints words for pip."""
    system = platform.system()
    if words[:1] == ["check"]:
        bits = 64 if sys.maxsize > 2**32 else 32
        libc = str(sysconfig.get_config_var("HOST_GNU_TYPE"))
        said, refused = refusal(system, platform.machine(), bits, libc), True
    else:
        index = words[1] if len(words) > 1 else CPU_INDEX
        pip, said = words_for_pip(system, index, has_nvidia_gpu, answers)
        print(pip)
        refused = False
    if said:
        print(said, file=sys.stderr)
    return int(refused and bool(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
