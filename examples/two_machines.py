"""Two machines train one model; a worker is killed; they go on, and reach the very same loss.

    python examples/two_machines.py

The machines are two network namespaces of Linux: each has a network of its own, and one virtual
cable joins them. On each runs one torchrun agent with one worker, as on two real machines:

    GLOO_SOCKET_IFNAME=cable torchrun --nnodes 2 --nproc-per-node 1 --max-restarts 3 \\
        --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29400 examples/train_distributed.py

Real machines have names that lead to them. These two share one name, so that each agent must be
told its address (--local-addr), and the first that it is the first (--rdzv-conf is_host=1).

All of it happens inside outer namespaces of network and processes. When this script ends, however
it ends, the kernel ends what runs in there and takes the networks away; those of your machine are
never touched. Root may do this, and other users where the system lets them have namespaces.
Exit code: 0 the same loss, 1 something went wrong, 2 no namespaces here.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import psutil

OUTER = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
SCRIPT = Path(__file__).with_name("train_distributed.py")
ADDRESS = "10.77.0.{}"
DEADLINE = 300


def main() -> int:
    """Enter the outer namespaces, or say why that is not possible."""
    parser = argparse.ArgumentParser(description="two machines, one of which loses its worker")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.every < 1 or options.steps < 10 * options.every:
        parser.error("--steps must be at least ten times --every: the worker dies at the third")
    if options.inside:
        return demonstrate(options.steps, options.images, options.every, options.inside)

    outer = OUTER if os.geteuid() == 0 else [*OUTER, "--user", "--map-root-user"]
    try:
        probe = "ip link add name cable type veth peer name end"
        subprocess.run([*outer, *probe.split()], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        print(f"No network namespaces can be made here: {said}", file=sys.stderr)
        print("It takes Linux, unshare, ip, and root or user namespaces.", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder:
        return enter(folder, [*outer, sys.executable, *sys.argv, "--inside", folder])


def enter(folder: str, command: list[str]) -> int:
    """Run this script inside the outer namespaces. However this process ends, they end with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    tied = ["setpriv", "--pdeathsig", "KILL", *command]
    environment = {**os.environ, "TMPDIR": folder}
    process = subprocess.Popen(tied, env=environment, start_new_session=True)
    try:
        return process.wait(DEADLINE)
    except KeyboardInterrupt:
        print("Interrupted: both machines are gone.", file=sys.stderr)
    except subprocess.TimeoutExpired:
        print(f"Not done after {DEADLINE} s: both machines are gone.", file=sys.stderr)
    finally:
        if process.poll() is None:
            # With the first process of a namespace the kernel ends all others.
            children = psutil.Process(process.pid).children()
            for child in children:
                child.kill()
            if not children:
                process.kill()
            process.wait()
    return 1


def demonstrate(steps: int, images: int, every: int, folder: Path) -> int:
    """Train undisturbed, then on two machines with a kill, and compare."""
    from train_distributed import fit  # loads torch: who is refused need not wait for that

    from labkit.distributed import launch

    run("ip link set lo up")
    print(f"one machine, two processes, {steps} steps:", flush=True)
    loss = launch(fit, steps=steps, images=images, every=every, path=folder / "undisturbed")[0]
    print("\ntwo machines, one process each, and a kill:", flush=True)
    with two_machines() as machines:
        arguments = f"--steps {steps} --images {images} --every {every}".split()
        disturbed = train_and_kill(machines, arguments, 3 * every - 1, folder)
    if disturbed != repr(loss):
        print(f"\nundisturbed {loss!r}, disturbed {disturbed}", file=sys.stderr)
        return 1
    print("\nThe same final loss, to the last bit.")
    return 0


@contextmanager
def two_machines() -> Iterator[list[str]]:
    """Make two networks with a cable between them. Yields the words that enter each."""
    # A network lives as long as a process is in it.
    holders = [
        subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            holder.stdout.readline()
        first, second = (holder.pid for holder in holders)
        run(f"ip link add name cable netns {first} type veth peer name cable netns {second}")
        machines = [f"nsenter --net=/proc/{holder.pid}/ns/net" for holder in holders]
        for number, machine in enumerate(machines, start=1):
            run(f"{machine} ip link set lo up")
            run(f"{machine} ip address add {ADDRESS.format(number)}/24 dev cable")
            run(f"{machine} ip link set cable up")
        yield machines
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def train_and_kill(
    machines: list[str], arguments: list[str], kill_at: int, folder: Path
) -> str | None:
    """Start an agent on each machine, kill one worker, and return the loss that is printed."""
    reading, writing = os.pipe()
    agents = [
        start_agent(number, machine, arguments, folder, writing)
        for number, machine in enumerate(machines, start=1)
    ]
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            loss = follow(lines, kill_at)
        codes = [agent.wait() for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    if any(codes) or loss is None:
        print(f"The agents ended with {codes}.", file=sys.stderr)
        for number in range(1, len(machines) + 1):
            print((folder / f"errors-{number}").read_text(), file=sys.stderr)
        return None
    return loss


def start_agent(
    number: int, machine: str, arguments: list[str], folder: Path, output: int
) -> "subprocess.Popen[bytes]":
    """Start torchrun on one machine. What the workers print goes to `output`."""
    agent = (
        f"{sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --max-restarts 3 "
        f"--rdzv-backend c10d --rdzv-endpoint {ADDRESS.format(1)}:29400 "
        f"--rdzv-conf is_host={int(number == 1)} --local-addr {ADDRESS.format(number)}"
    )
    script = [str(SCRIPT), *arguments, "--path", str(folder / "disturbed")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "cable"}
    with (folder / f"errors-{number}").open("w") as errors:
        return subprocess.Popen(
            [*machine.split(), *agent.split(), *script],
            stdout=output,
            stderr=errors,
            env=environment,
        )


def follow(lines: IO[str], kill_at: int) -> str | None:
    """Show what the workers print, and kill that of rank 1 after step `kill_at`."""
    processes: dict[str, int] = {}
    killed, loss = False, None
    for line in lines:
        print(line, end="", flush=True)
        if found := re.match(r"rank (\d+) of \d+ is process (\d+)", line):
            processes[found[1]] = int(found[2])
        if line.startswith(f"rank 1, step {kill_at} ") and not killed:
            os.kill(processes["1"], signal.SIGKILL)
            killed = True
            print(f"killed rank 1, process {processes['1']}", flush=True)
        if found := re.match(r"final loss (\S+)", line):
            loss = found[1]
    return loss if killed else None


def run(command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    sys.exit(main())
