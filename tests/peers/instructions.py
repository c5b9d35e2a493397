"""Instructions of user code for a POST with --dry-run=client: the difference of many and few requests; and what authentication adds. Called by
tests/instructions."""

import hashlib
import hmac
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
# that a token, or a signature without its hash, adds at most
MAX_AUTHENTICATION = 3000
SECRET = "It's a Secret to Everybody"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
# as many variables as a pod has
ENVIRONMENT = {f"SERVICE_{number}_PORT": f"tcp://10.96.0.{number}:443" for number in range(24)} | {"PATH": os.environ["PATH"]}


def request(body, headers=""):
    head = f"POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def plain(number):
    return request(f'{{"id":"a{number}","args":["Hello","world"]}}')


def with_token(number):
    return request(f'{{"id":"a{number:05}"}}', f"Authorization: Bearer {TOKEN}\r\n")


def signed(size):
    """A body of so many bytes with GitHub's signature."""

    def one(number):
        body = f'{{"id":"a{number:05}","x":"'.ljust(size - 2, "x") + '"}'
        signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
        return request(body, f"X-Hub-Signature-256: sha256={signature}\r\n")

    return one


def read_reply(stream):
    head = b"".join(iter(stream.readline, b"\r\n"))
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"a request failed: {head.decode()}")
    stream.read(int(re.search(rb"Content-Length: (\d+)", head).group(1)))


def instructions(binary, arguments, requests, folder, request):
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


def each(binary, arguments, folder, request):
    few, many = (instructions(binary, arguments, requests, folder, request) for requests in (FEW, MANY))
    return (many - few) // (MANY - FEW)


def authentication(binary, folder):
    """What a token adds; and a signature over 10 KB, with and without its hash."""
    tokens, secret = f"{folder}/tokens", f"{folder}/secret"
    os.mkdir(tokens)
    for path, text in ((f"{tokens}/ci", TOKEN), (secret, SECRET)):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def added(options, request):
        return each(binary, [*options, ".spec = {}"], folder, request) - each(binary, [".spec = {}"], folder, request)

    webhook = ["--webhook", f"/job=github:{secret}"]
    sizes = (128, 10 << 10)
    small, large = (added(webhook, signed(size)) for size in sizes)
    block = (large - small) / ((sizes[1] - sizes[0]) / 64)
    # the body's blocks, and the last one with its length; that of the outer hash, for the keys are hashed before
    blocks = sizes[1] / 64 + 2
    return [
        ("a token of a file", added(["--auth", f"tokens={tokens}"], with_token)),
        (f"a signature over 10 KB, without its hash of {block * blocks:.0f}", int(large - block * blocks)),
    ]


def main():
    binary, is_slow = sys.argv[1], False
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments, limit in FILTERS:
            count = each(binary, arguments, folder, plain)
            print(f"{name}: {count} instructions a request (at most {limit})")
            is_slow |= count > limit
        for name, count in authentication(binary, folder):
            print(f"{name}: {count} instructions more (at most {MAX_AUTHENTICATION})")
            is_slow |= count > MAX_AUTHENTICATION
    sys.exit(is_slow)


if __name__ == "__main__":
    main()
