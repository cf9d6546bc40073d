"""The web farm for benchmarks: a copy of `specs/prime` under a name of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

SPECS = os.path.join(os.path.dirname(__file__), "..", "..", "specs", "prime")


class Farm:
    """Brought up on entry, taken down on exit."""

    def __init__(self, stack):
        self.stack = stack

    def hatchery(self, *arguments, check=True):
        """Runs the program; a failure ends the benchmark with what it printed."""
        env = dict(os.environ, PRIME_MAX="1000")
        done = subprocess.run([os.environ["HATCHERY"], "--stack", self.stack, *arguments], env=env,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120)
        if check and done.returncode != 0:
            sys.exit(f"hatchery {' '.join(arguments)}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def status(self):
        """What `ps` says."""
        return json.loads(self.hatchery("ps", "--json"))

    def __enter__(self):
        self.folder = tempfile.mkdtemp()
        for name in os.listdir(SPECS):
            shutil.copy(os.path.join(SPECS, name), self.folder)
        spec = os.path.join(self.folder, "prime.yaml")
        with open(spec) as file:
            text = file.read()
        with open(spec, "w") as file:
            file.write(text.replace("name: prime\n", f"name: {self.stack}\n", 1))
        self.hatchery("up", "-d", "--wait", spec)
        return self

    def __exit__(self, *_):
        self.hatchery("down", check=False)
        shutil.rmtree(self.folder)
