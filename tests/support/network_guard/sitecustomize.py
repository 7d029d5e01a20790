"""Put on PYTHONPATH: no Python process may look up or reach anything beyond loopback.

An attempt raises, and is written to the file that LABKIT_NETWORK_LOG names, so that one whose error
is swallowed is noticed too.
"""

import os
import sys

LOCAL_NAMES = {None, "", "localhost", "::1", "0.0.0.0", "::"}
WATCHED = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def guard(event: str, arguments: tuple[object, ...]) -> None:
    if event not in WATCHED:
        return
    address = arguments[WATCHED[event]]
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if event in {"socket.connect", "socket.sendto"} and not isinstance(address, tuple):
        return  # the name of a Unix socket
    if host in LOCAL_NAMES or str(host).startswith("127."):
        return
    log = os.environ.get("LABKIT_NETWORK_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123 - before pathlib is loaded
            file.write(f"{event} {host}\n")
    raise PermissionError(f"{event}: {host} is beyond loopback")


sys.addaudithook(guard)
