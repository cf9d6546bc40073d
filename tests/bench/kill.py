#!/usr/bin/env python3
"""From a container's death to nginx's receipt of the reload signal.

Kills the process in `prime2` so often as the first argument says (20 unless given), and
prints for each time: death (seen on a pidfd of our own) to SIGHUP in nginx's master (seen by
strace), how much of it the validator took by the controller's own account, and how long it was
until the instance ran again. Run it as root through `tests/bench/run kill`.
"""

import os
import re
import select
import signal
import statistics
import subprocess
import sys
import threading
import time

from farm import Farm

TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 20
FARM = Farm("bench-kill")
RESET_AFTER = 10


def node(name):
    status = FARM.status()
    return next(n for n in status["nodes"] if n["node"] == name), status


def wait(what, found, limit=60.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.005)
    sys.exit(f"waited {limit:.0f}s for {what}\n{FARM.hatchery('ps', check=False)}")


class Signals(threading.Thread):
    """The moments at which a process got SIGHUP."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.seen = []
        self.strace = subprocess.Popen(
            ["strace", "-ttt", "-e", "trace=none", "-e", "signal=SIGHUP", "-p", str(pid)],
            stderr=subprocess.PIPE, text=True)
        line = self.strace.stderr.readline()
        if "attached" not in line:
            sys.exit(f"strace: {line}")

    def run(self):
        for line in self.strace.stderr:
            moment = re.match(r"(\d+\.\d+) --- SIGHUP", line)
            if moment:
                self.seen.append(float(moment.group(1)))


def measure():
    signals = Signals(node("processes/nginx")[0]["pid"])
    signals.start()
    delays, backs = [], []
    log = f"/var/log/hatchery/{FARM.stack}/controller.log"
    start = os.path.getsize(log)
    for _ in range(TIMES):
        wait("convergence", lambda: node("processes/nginx")[1]["converged"])
        # It must have run for `reset_after`, or its delay would be the next longer one.
        wait("prime2's age", lambda: node("containers/prime2")[0]["age"]["secs"] >= RESET_AFTER)
        pid = node("containers/prime2")[0]["pid"]
        fd = os.pidfd_open(pid)
        before = len(signals.seen)
        os.kill(pid, signal.SIGKILL)
        select.select([fd], [], [], 10)
        died = time.time()
        os.close(fd)
        wait("SIGHUP", lambda: len(signals.seen) > before)
        delays.append((signals.seen[before] - died) * 1000)
        wait("prime2", lambda: node("containers/prime2")[0]["pid"] not in (None, pid))
        backs.append(time.time() - died)
    with open(log) as file:
        file.seek(start)
        validated = [int(ms) for ms in re.findall(r"validated in (\d+)ms", file.read())]
    signals.strace.kill()
    validator = statistics.median(validated) if validated else float("nan")
    median = statistics.median(delays)
    print(f"kills                      {TIMES}")
    print(f"death to SIGHUP, median    {median:.1f} ms")
    print(f"death to SIGHUP, worst     {max(delays):.1f} ms")
    print(f"validator's run, median    {validator:.1f} ms")
    print(f"beyond it, median          {median - validator:.1f} ms")
    print(f"running again, median      {statistics.median(backs):.2f} s (restart delay 1 s)")
    print(f"running again, worst       {max(backs):.2f} s")


with FARM:
    measure()
