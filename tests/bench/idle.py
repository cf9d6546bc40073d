#!/usr/bin/env python3
"""What an idle controller with four containers costs.

Brings up the farm, waits until it converged, and reads for so many seconds as the first
argument says (60 unless given) how much of a core the controller used, and its Pss. nspawn's
own processes are listed apart. Run it as root through `tests/bench/run idle`.
"""

import os
import sys
import time

from farm import Farm

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
TICKS = os.sysconf("SC_CLK_TCK")


def ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def main():
    with Farm("bench-idle") as farm:
        pid = farm.status()["controller_pid"]
        time.sleep(10)
        before, began = ticks(pid), time.monotonic()
        time.sleep(SECONDS)
        used = (ticks(pid) - before) / TICKS / (time.monotonic() - began)
        print(f"controller, of a core      {used * 100:.3f} % over {SECONDS} s")
        print(f"controller, Pss            {pss(pid):.1f} MB")
        for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
            try:
                with open(f"/proc/{entry}/comm") as file:
                    name = file.read().strip()
                if name == "systemd-nspawn":
                    print(f"nspawn {entry:>8}, Pss       {pss(entry):.1f} MB")
            except OSError:
                continue


main()
