"""Sends again what of the load's batches since a moment can't be read: republish.py FOLDER SECONDS_SINCE_THE_EPOCH.

Prints how many users that were, as JSON.
"""

import json
import sys
from pathlib import Path

from millrace import connections, flow, identity

folder, since = Path(sys.argv[1]), float(sys.argv[2])
way = connections.load()
seeds = [
    line.split()[4]
    for line in (folder / "journal").read_text(encoding="ascii").splitlines()
    if float(line.split()[1]) >= since
]
json.dump(
    sum(flow.republish(way, str(identity.batch_id(way.source.name, seed))) for seed in seeds), sys.stdout
)
