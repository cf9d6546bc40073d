"""Answers a prime number to whoever asks, and takes its time over it."""

import os
import random
import socket
import sys

from flask import Flask, Response

# Numbers to be tried begin anywhere below this: one answer takes about 1.5 s of a core.
PRIME_MAX = int(os.environ.get("PRIME_MAX") or 100000000)
HOSTNAME = socket.gethostname()

app = Flask(__name__)


def is_prime(number):
    """Tries every divisor in turn: slow on purpose, this is the load."""
    if number < 2:
        return False
    for divisor in range(2, number):
        if number % divisor == 0:
            return False
    return True


def next_prime(number):
    """The first prime that is not below `number`."""
    while not is_prime(number):
        number += 1
    return number


@app.after_request
def name_the_server(response):
    response.headers["X-Served-By"] = HOSTNAME
    return response


@app.route("/")
def prime():
    number = next_prime(random.randrange(PRIME_MAX))
    return Response(f"{number}\n", mimetype="text/plain")


@app.route("/healthz")
def healthz():
    return Response("ok\n", mimetype="text/plain")


if __name__ == "__main__":
    # SIGTERM keeps its default: it ends at once, and whoever started it sees by what.
    sys.stdout.reconfigure(line_buffering=True)
    app.run(host="0.0.0.0", port=8080, threaded=True)
