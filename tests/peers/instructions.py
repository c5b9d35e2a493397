"""Instructions of user code for a POST with --dry-run=client: the difference of many and few requests. Called by tests/instructions."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading

PEERS = os.path.dirname(os.path.abspath(__file__))
FEW, MANY = 200, 1200
# name, arguments, and instructions at most: what was measured, and a tenth more
FILTERS = [
    ("default", [], 133_000),
    ("tests/peers/filter.jq", [f"--from-file={PEERS}/filter.jq"], 70_000),
    (".spec = {}", [".spec = {}"], 60_000),
]
# as many variables as a pod has
ENVIRONMENT = {f"SERVICE_{number}_PORT": f"tcp://10.96.0.{number}:443" for number in range(24)} | {"PATH": os.environ["PATH"]}


def request(number):
    body = b'{"id":"a%d","args":["Hello","world"]}' % number
    return b"POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def read_reply(stream):
    head = b"".join(iter(stream.readline, b"\r\n"))
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"a request failed: {head.decode()}")
    stream.read(int(re.search(rb"Content-Length: (\d+)", head).group(1)))


def instructions(binary, arguments, requests, folder):
    """Of a whole run with so many requests."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", binary, "--port=0", "--dry-run=client"]
    process = subprocess.Popen([*command, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    address = next((match for line in process.stderr if (match := re.search(r"listening on (\S+):(\d+)$", line))), None)
    if not address:
        sys.exit(f"{binary} does not listen")
    rest = []
    reader = threading.Thread(target=lambda: rest.extend(process.stderr))
    reader.start()
    with socket.create_connection((address.group(1), int(address.group(2)))) as connection, connection.makefile("rb") as stream:
        for number in range(requests):
            connection.sendall(request(number))
            read_reply(stream)
    process.terminate()
    process.wait()
    reader.join()
    return int(re.search(r"Collected : (\d+)", "".join(rest)).group(1))


def main():
    binary, is_slow = sys.argv[1], False
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments, limit in FILTERS:
            few, many = (instructions(binary, arguments, requests, folder) for requests in (FEW, MANY))
            each = (many - few) // (MANY - FEW)
            print(f"{name}: {each} instructions a request (at most {limit})")
            is_slow |= each > limit
    sys.exit(is_slow)


if __name__ == "__main__":
    main()
