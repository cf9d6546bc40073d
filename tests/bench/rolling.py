#!/usr/bin/env python3
"""Requests that fail while the farm changes under load.

`wrk` asks nginx for as long as the first argument says (60 s unless given), while the spec
changes `command`, scales from 4 to 8 to 3, and one container is restarted: in both orders of
`update`, without keep-alive and with it. Afterwards the same load runs while nginx alone is
reloaded as often as it was then, for comparison. Ends with 1 when a request without keep-alive
failed, when one was answered by anything but 2xx or timed out, or when there were more read
errors than bare reloads give. Run it as root through `tests/bench/run rolling`.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time

from farm import Farm

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
CONNECTIONS = 8
WRK = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "5s"]
KINDS = {"close": ["-H", "Connection: close"], "keep-alive": []}


class Load:
    """A run of wrk; `result` waits for it and gives what it counted."""

    def __init__(self, kind):
        self.run = subprocess.Popen([*WRK, *KINDS[kind], "http://127.0.0.1/"], text=True,
                                    stdout=subprocess.PIPE)

    def result(self):
        text = self.run.communicate(timeout=SECONDS + 30)[0]
        counted = {"requests": int(re.search(r"(\d+) requests in", text).group(1)),
                   "connect": 0, "read": 0, "write": 0, "timeout": 0, "non2xx": 0}
        for name, count in re.findall(r"(connect|read|write|timeout) (\d+)", text):
            counted[name] = int(count)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        counted["non2xx"] = int(bad.group(1)) if bad else 0
        return counted


def edit(farm, change):
    """Saves an edit, and waits until it converged."""
    path = os.path.join(farm.folder, "prime.yaml")
    with open(path) as file:
        text = change(file.read())
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)
    generation = farm.status()["generation"]
    settle(farm, lambda status: status["generation"] > generation or status["converged"])
    settle(farm, lambda status: status["converged"])


def settle(farm, found, limit=120.0):
    end = time.monotonic() + limit
    time.sleep(0.3)
    while time.monotonic() < end:
        if found(farm.status()):
            return
        time.sleep(0.1)
    sys.exit(f"it did not settle in {limit:.0f}s\n{farm.hatchery('ps', check=False)}")


def changes(farm):
    """What happens under the load, one after the other."""
    edit(farm, lambda text: re.sub(r"command: \[ /usr/bin/python3,( -B,)?",
                                   lambda m: "command: [ /usr/bin/python3," +
                                   ("" if m.group(1) else " -B,"), text, count=1))
    edit(farm, lambda text: re.sub(r"replicas: \d+", "replicas: 8", text))
    edit(farm, lambda text: re.sub(r"replicas: \d+", "replicas: 3", text))
    farm.hatchery("restart", "prime2")
    settle(farm, lambda status: status["converged"])


def reloads(farm):
    """How often nginx was told to read its files, by the controller's log."""
    with open(f"/var/log/hatchery/{farm.stack}/controller.log") as file:
        return len(re.findall(r"reloaded by SIGHUP", file.read()))


def measure(farm, order, kind):
    update = f"    update: {{ order: {order} }}\n"
    edit(farm, lambda text: re.sub(r"    update: .*\n", "", text)
         .replace("    replicas: ", update + "    replicas: ", 1))
    edit(farm, lambda text: re.sub(r"replicas: \d+", "replicas: 4", text))
    before, began = reloads(farm), time.monotonic()
    load = Load(kind)
    changes(farm)
    took = time.monotonic() - began
    counted = load.result()
    if took > SECONDS:
        sys.exit(f"the changes took {took:.0f}s, longer than the load; give more seconds")
    return counted, reloads(farm) - before, took


def bare(farm, kind, times):
    """The same load while nothing but nginx's own reloads happens."""
    pid = next(n for n in farm.status()["nodes"] if n["node"] == "processes/nginx")["pid"]
    load = Load(kind)
    for _ in range(times):
        time.sleep(SECONDS / (times + 1))
        os.kill(pid, signal.SIGHUP)
    return load.result()


def main():
    failed = False
    print(f"{'order':12} {'kind':11} requests  connect read write timeout non-2xx  reloads")

    def show(order, kind, counted, times, more=""):
        print(f"{order:12} {kind:11} {counted['requests']:8}  {counted['connect']:7} "
              f"{counted['read']:4} {counted['write']:5} {counted['timeout']:7} "
              f"{counted['non2xx']:7}  {times:7}{more}", flush=True)

    with Farm("bench-rolling") as farm:
        for kind in KINDS:
            seen, most = [], 0
            for order in ("stop-first", "start-first"):
                counted, times, took = measure(farm, order, kind)
                show(order, kind, counted, times, f"  changes took {took:.0f}s")
                seen.append((counted, times))
                most = max(most, times)
            plain = bare(farm, kind, most)
            show("bare reloads", kind, plain, most)
            for counted, times in seen:
                if kind == "close":
                    failed |= any(counted[name] for name in ("connect", "read", "write"))
                failed |= counted["timeout"] > 0 or counted["non2xx"] > 0
                # As many as so many bare reloads give; two standard deviations are chance. One
                # reload ends none or all of the connections, so they come in bunches.
                each = plain["read"] / max(most, 1)
                chance = math.sqrt(times * each * max(CONNECTIONS - each, 1))
                failed |= kind != "close" and counted["read"] > each * times + 2 * chance
    sys.exit(1 if failed else 0)


main()
