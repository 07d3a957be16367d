"""Python imports this by itself: no client may reach out of this machine, nor ask for an address outside."""

import sys

_LOCAL = {"127.0.0.1", "localhost", "::1", None, ""}


def _refuse_others(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path: of a socket in the file system
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host not in _LOCAL:
        # Said too, as clients swallow errors of what they do aside.
        print(f"reached out to {host}", file=sys.stderr, flush=True)
        raise PermissionError(f"no client may reach out to {host}")


sys.addaudithook(_refuse_others)
