"""Make the checks of some modules, of one lane after the other.

Usage: python run.py LANES MODULE...; LANES: a JSON list of settings, see checks.py. Each lane has modules of its own;
the client that they use, which takes seconds to import, is imported once.
"""

import importlib
import json
import os
import sys

lanes, modules = json.loads(sys.argv[1]), sys.argv[2:]
made = failed = 0
for lane in lanes:
    os.environ["LANE"] = json.dumps(lane)
    for name in ("checks", *modules):
        sys.modules.pop(name, None)
    print(f"with {lane['chat_model']}:", flush=True)
    for name in modules:
        importlib.import_module(name)
    more_made, more_failed = importlib.import_module("checks").make_checks()
    made += more_made
    failed += more_failed
# So that none is lost without a word.
if failed or made < 3 * len(lanes) * len(modules):
    sys.exit(f"{failed} of {made} checks failed")
print(f"all {made} checks passed")
