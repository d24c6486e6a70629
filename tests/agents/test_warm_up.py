"""What a worker compiles before it joins the group is all that it will need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"

# In a process of its own, for in this one other tests may have compiled everything.
_HOURS = """
import json
import sys
from datetime import datetime
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from agents.commands.worker import warm_up
from streams.blocks import decode_block, encode_blocks
from streams.error_model import read_error_model
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import FEEDBACK
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.shard import Shard
from streams.simulation import simulate
from streams.terms import Terms


def compiled():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("geo", "streams")]
    kernels = {one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)}
    return {f"{kernel.py_func.__qualname__}{signature}" for kernel in kernels for signature in kernel.signatures}


made = IntakePack(load_pack(Path(sys.argv[1])))
warm_up(made)
warm = compiled()
intake, shard = Intake(made, TEST_KEY), Shard(Terms(made.pack.code))
start = datetime.fromisoformat("2026-06-01T08:00:00+08:00")
messages = simulate(made.pack, read_error_model(), seed=1, start=start, hours=4).messages
for number in range(0, len(messages), 500):
    records = [
        SourceRecord(one.topic, one.partition, one.offset, one.timestamp_ms, one.key, one.value, None)
        for one in messages[number : number + 500]
    ]
    for incident in shard.incidents()[:1]:
        at_ms = records[0].timestamp_ms
        said = {"id": str(number), "time": at_ms, "action": "close", "incident_id": incident.incident_id}
        records.append(SourceRecord(FEEDBACK, 0, number, at_ms, None, json.dumps(said).encode()))
    batch = intake.take(records)
    for block in encode_blocks(intake.terms, batch.reports, batch.feedback):
        shard.apply_block(decode_block(block, shard.terms))
json.dump({"warm": len(warm), "late": sorted(compiled() - warm), "incidents": len(shard.incidents())}, sys.stdout)
"""


def test_no_kernel_is_left_to_be_compiled_once_the_worker_is_warm():
    """Readings, tickets, places, feedback and blocks of half a day, by the terms the worker shares with its warming."""
    done = subprocess.run(
        [sys.executable, "-c", _HOURS, str(SAMPLE)], cwd=SAMPLE.parents[1], capture_output=True, check=True, text=True
    )
    found = json.loads(done.stdout)
    assert found["warm"] > 0
    assert found["incidents"] > 100
    assert found["late"] == []
