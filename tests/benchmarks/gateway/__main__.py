"""What a gateway adds to a request, beside others in front of the same backend: `make bench-gateway`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import contenders
from contenders import SURFACES
from loader import WRK
from measure import Bench, Plan
from report import report
from servers import ServerError, raise_file_limit

PARTS = {
    "chat": "plain replies at 10 connections, start and memory when ready",
    "connections": "plain replies at 1 and 50 connections, of those looked at more closely",
    "streams": "streams of 100 events at 10 connections",
    "mixed": "streams whose events come one by one, of those looked at more closely",
    "first-byte": "time to the first word of a stream, one stream at a time",
    "idle": "memory of 1,000 open streams that say nothing",
    "memory": "llamastack's memory over 200,000 requests",
}


def main() -> int:
    """Measure and print; 1 where anything went wrong."""
    options = _options()
    # As Ctrl-C: what runs is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_file_limit()
    plan = Plan(options.only, options.measure, options.rounds, options.seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder, Bench(plan, Path(folder)) as bench:
            bench.run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except ServerError as error:
        print(f"error: the backend: {error}", file=sys.stderr)
        return 1
    note = _note()
    print(report(bench.found, rounds=plan.rounds, seconds=plan.seconds, note=note, markdown=options.markdown))
    if options.json:
        written = {"note": note, "seconds": plan.seconds, "rounds": plan.rounds}
        results = {name: asdict(found) for name, found in bench.found.items()}
        options.json.write_text(json.dumps(written | {"found": results}, indent=1) + "\n")
    return 1 if any(found.faults for found in bench.found.values()) else 0


def _options() -> argparse.Namespace:
    names = [surface.name for surface in SURFACES]
    parser = argparse.ArgumentParser(
        prog="gateway",
        description=__doc__,
        epilog="measures: " + "; ".join(f"{name}: {what}" for name, what in PARTS.items()),
    )
    parser.add_argument("--seconds", type=_positive, default=5, metavar="S", help="of one run (default: 5)")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), default=3, metavar="N", help="(default: 3)")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument(
        "--measure", nargs="+", choices=PARTS, default=list(PARTS), metavar="WHAT", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's values there")
    return parser.parse_args()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _note() -> str:
    """What it was measured with."""
    used = [f"python {platform.python_version()}"]
    used += [f"{name} {version(name)}" for name in ("uvicorn", "starlette", "aiohttp", "httpx")]
    if find_spec("sniffio") is None:
        used.append("no sniffio, which slows httpx")
    if contenders.NGINX:
        used.append(_first_line([contenders.NGINX, "-v"]).removeprefix("nginx version: ").replace("/", " "))
    if contenders.NODE:
        used.append(f"node {_first_line([contenders.NODE, '--version'])}")
    loader = "wrk" if WRK else "an own loader in Python, which is slower than the backend and nginx"
    plain = "nginx" if contenders.NGINX else "node"
    return (
        f"Backend: {plain} for plain replies, node for streams, each event a write of its own. "
        f"Loader: {loader}. {os.cpu_count()} cores, shared by loader, server and backend; one worker each. "
        f"{', '.join(used)}."
    )


def _first_line(command: list[str]) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    return (result.stdout or result.stderr).splitlines()[0].strip()


if __name__ == "__main__":
    sys.exit(main())
