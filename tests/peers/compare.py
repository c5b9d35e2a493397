"""Measures the dispatcher and its peers in turns, against one stand-in for the API server. Called by tests/compare."""

import argparse
import datetime
import getpass
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PEERS = os.path.dirname(os.path.abspath(__file__))
NAMESPACE = "compare"
TOKEN = "token-of-the-comparison"
TICKS = os.sysconf("SC_CLK_TCK")
# what a pod has in its environment
ENVIRONMENT = {f"SERVICE_{number}_PORT": f"tcp://10.96.0.{number}:443" for number in range(24)} | {"PATH": os.environ["PATH"]}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dispatcher", required=True, help="the binary to measure")
    parser.add_argument("--before", help="an earlier binary, which is measured too")
    parser.add_argument("--connections", default="1,16,64,256,512", help="of wrk, default %(default)s")
    parser.add_argument("--delays", default="0,5", help="of the API server in ms, default %(default)s")
    parser.add_argument("--methods", default="POST,GET", help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s; the table has medians")
    parser.add_argument("--seconds", type=int, default=5, help="of one measurement, default %(default)s")
    parser.add_argument("--short", action="store_true", help="one round of one second at 16 connections")
    given = parser.parse_args()
    if given.short:
        given.connections, given.rounds, given.seconds = "16", 1, 1
    return given


def certificates(folder):
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, stderr=subprocess.DEVNULL)

    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=compare CA")
    openssl("req", *ec, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    with open(f"{folder}/names", "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt")
    with open(f"{folder}/token", "w") as file:
        file.write(TOKEN)


class Process:
    """A server, ended with its children when the comparison is over."""

    def __init__(self, command, folder, **more):
        self.log = open(f"{folder}/{os.path.basename(command[0])}.log", "ab")
        self.start = self.log.tell()
        self.process = subprocess.Popen(command, env=ENVIRONMENT | more.pop("env", {}), stderr=self.log, **more)

    def pids(self):
        pids = [self.process.pid]
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[1]) == self.process.pid:
                        pids.append(int(name))
            except FileNotFoundError:
                pass
        return pids

    def cpu(self):
        """Seconds of CPU time so far."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self):
        """MiB of resident memory, of all its processes, at its peak."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status") as file:
                total += int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
        return total / 1024

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def nginx(config, folder, **names):
    """nginx cannot bind port 0, but it takes a socket that is bound already."""
    os.makedirs(folder, exist_ok=True)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096, reuse_port=True)
    listener.setblocking(False)  # else a worker hangs in accept when the other was quicker
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    with open(f"{PEERS}/{config}") as file:
        text = file.read()
    # else the workers are another user's, which may not read the folder
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    for name, value in (names | {"FOLDER": folder, "PEERS": PEERS, "LISTEN": address, "USER": user}).items():
        text = text.replace(f"@{name}@", str(value))
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(text)
    command = ["/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-e", "stderr"]
    inherited = {"NGINX": f"{listener.fileno()};"}
    process = Process(command, folder, env=inherited, pass_fds=[listener.fileno()])
    listener.close()
    return process, address


def dispatcher(binary, folder, api):
    command = [
        binary, "--port=0", "--listen-address=127.0.0.1", f"--from-file={PEERS}/filter.jq", f"--server=https://{api}",
        f"--namespace={NAMESPACE}", f"--token-file={folder}/token", f"--certificate-authority={folder}/ca.crt",
    ]  # fmt: skip
    process = Process(command, folder)
    path, end = process.log.name, time.monotonic() + 10
    while time.monotonic() < end and process.process.poll() is None:
        with open(path, "rb") as log:
            log.seek(process.start)
            if match := re.search(rb"listening on (\S+)\n", log.read()):
                return process, match.group(1).decode()
        time.sleep(0.01)
    sys.exit(f"{binary} does not listen: see {path}")


def go(folder, api):
    binary = f"{folder}/peer"
    if not os.path.exists(binary):
        subprocess.run(["go", "build", "-o", binary, f"{PEERS}/peer.go"], check=True)
    process = Process([binary, f"https://{api}", folder, NAMESPACE], folder, stdout=subprocess.PIPE)
    return process, process.process.stdout.readline().decode().strip()


def measure(process, address, method, connections, seconds):
    """Requests a second, CPU microseconds a request, median and 99th percentile of the latency in ms."""
    path = "/job" if method == "POST" else "/job/demo-job-a1"
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout=20s", "-s", f"{PEERS}/load.lua"]
    before = process.cpu()
    done = subprocess.run([*command, f"http://{address}{path}", "--", method], capture_output=True, text=True)
    result = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    requests, duration, failed, median, p99 = map(int, result.groups()) if result else (0, 1, 0, 0, 0)
    if failed or not requests:
        with open(process.log.name, errors="replace") as log:
            tail = log.read()[-2000:]
        sys.exit(f"{failed} of {requests} {method} at {connections} connections failed\n{done.stdout}{done.stderr}{tail}")
    cpu = process.cpu() - before
    return requests / duration * 1e6, cpu / requests * 1e6, median / 1000, p99 / 1000


def main():
    given = options()
    with tempfile.TemporaryDirectory() as folder:
        certificates(folder)
        cells, memory = {}, {}
        for delay in map(int, given.delays.split(",")):
            compare(given, folder, delay, cells, memory)
        report(given, cells, memory)


def compare(given, folder, delay, cells, memory):
    running = []
    try:
        stub_folder = f"{folder}/stub-{delay}"
        os.makedirs(stub_folder)
        for name in ["server.crt", "server.key"]:
            os.link(f"{folder}/{name}", f"{stub_folder}/{name}")
        stub, api = nginx("stub.conf", stub_folder, DELAY=delay / 1000, TOKEN=TOKEN)
        running.append(stub)
        script_folder, proxy_folder = f"{folder}/script-{delay}", f"{folder}/proxy-{delay}"
        for one in [script_folder, proxy_folder]:
            os.makedirs(one)
            for name in ["ca.crt", "token"]:
                os.link(f"{folder}/{name}", f"{one}/{name}")
        peers = {"ours": dispatcher(given.dispatcher, folder, api)}
        if given.before:
            peers["before"] = dispatcher(given.before, folder, api)
        peers["nginx+Lua"] = nginx("dispatch.conf", script_folder, API=api, NAMESPACE=NAMESPACE)
        peers["nginx proxy"] = nginx("proxy.conf", proxy_folder, API=api, NAMESPACE=NAMESPACE)
        peers["Go"] = go(folder, api)
        running += [process for process, _ in peers.values()]
        for method in given.methods.split(","):
            for connections in map(int, given.connections.split(",")):
                for name, (process, address) in peers.items():
                    measure(process, address, method, connections, 1)  # warm
                for turn in range(given.rounds):
                    for name, (process, address) in peers.items():
                        result = measure(process, address, method, connections, given.seconds)
                        cells.setdefault((method, delay, connections), {}).setdefault(name, []).append(result)
                        print(method, delay, connections, name, "%.0f/s %.0f us %.2f ms %.2f ms" % result, file=sys.stderr)
        for name, (process, _) in peers.items():
            memory[name] = max(memory.get(name, 0), process.memory())
    finally:
        for process in reversed(running):
            process.end()


def report(given, cells, memory):
    names = list(memory)
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores ({cpu or platform.machine()}), {given.rounds} rounds of {given.seconds} s; the load and the stand-in for the API server share them.\n")
    others = [name for name in names if name != "ours"]
    head = ["request", "API server", "connections", "ours /s", *[f"{name}" for name in others], "CPU us", *others, "p99 ms", *others]
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join(["---"] * 2 + ["--:"] * (len(head) - 2)) + "|")
    for (method, delay, connections), results in cells.items():
        median = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in results.items()}
        ours = median["ours"]
        row = [method, f"{delay} ms", connections, f"{ours[0]:.0f}", *[f"{ours[0] / median[name][0]:.2f}×" for name in others]]
        row += [f"{ours[1]:.0f}", *[f"{median[name][1]:.0f}" for name in others]]
        row += [f"{ours[3]:.1f}", *[f"{median[name][3]:.1f}" for name in others]]
        print("| " + " | ".join(map(str, row)) + " |")
    print("\nMemory at its peak, MiB: " + ", ".join(f"{name} {memory[name]:.0f}" for name in names) + ".")


if __name__ == "__main__":
    main()
