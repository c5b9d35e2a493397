"""Signs as the senders' Python libraries do, and checks what the dispatcher answers. Called by tests/signatures, as its twin
signatures.mjs is: python signatures.py PORT FOLDER LOG, with the secrets of the webhook /job/NAME in FOLDER/NAME."""

import base64
import hashlib
import hmac
import http.client
import json
import pathlib
import re
import signal
import sys
import time
import urllib.parse
from datetime import datetime, timezone
from importlib.metadata import version

from githubkit.webhooks import sign as githubkit_sign
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from stripe import WebhookSignature

PORT, FOLDER, LOG = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PLAIN = b'{"ref":"main","id":7}'
# as sent: white space that JSON ignores, and characters of two, three and four bytes
SPACED = '{ "ref" :\t"main",\r\n  "name": "Zoë – 東京 \U0001f680", "escaped": "\\u00e9\\/", "empty": [ ] }\n'.encode()
LARGE = ('{"ref":"main","text":"' + "größer " * 30_000 + '"}').encode()
# the text of a plus, a space, an ampersand and an é
FIELDS = {"payload": '{"ref": "main", "name": "Zoë & 1 + 1"}', "text": "deploy é", "empty": ""}
FORM_BODY = urllib.parse.urlencode(FIELDS).encode()
OTHER = {"standard-webhooks": "whsec_" + base64.b64encode(b"a secret that is in no file").decode()}
REFUSED = set()


def digest(secret, body):
    return hmac.new(secret.encode(), body, hashlib.sha256)


def base64_of(secret, body):
    return base64.b64encode(digest(secret, body).digest()).decode()


def slack(secret, body, at):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(at), body=body)
    return {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(at)}


def standard_webhooks(secret, body, at):
    moment = datetime.fromtimestamp(at, timezone.utc)
    signature = Webhook(secret).sign("msg_1", moment, body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}


# NAME: what signs, the header with the signature, and a function of secret, body and time that returns the headers
SCHEMES = {
    "github": ("githubkit", "X-Hub-Signature-256", lambda secret, body, at: {"X-Hub-Signature-256": githubkit_sign(secret, body)}),
    "bitbucket": ("hmac", "X-Hub-Signature", lambda secret, body, at: {"X-Hub-Signature": "sha256=" + digest(secret, body).hexdigest()}),
    "gitlab": ("no signature", "X-Gitlab-Token", lambda secret, body, at: {"X-Gitlab-Token": secret}),
    "slack": ("slack_sdk", "X-Slack-Signature", slack),
    "stripe": (
        "stripe",
        "Stripe-Signature",
        lambda secret, body, at: {"Stripe-Signature": WebhookSignature.generate_signature_header(body.decode(), secret, at)},
    ),
    "shopify": ("hmac", "X-Shopify-Hmac-Sha256", lambda secret, body, at: {"X-Shopify-Hmac-Sha256": base64_of(secret, body)}),
    "standard-webhooks": ("standardwebhooks", "webhook-signature", standard_webhooks),
    "gitea": ("hmac", "X-Gitea-Signature", lambda secret, body, at: {"X-Gitea-Signature": digest(secret, body).hexdigest()}),
    "line": ("hmac", "X-Line-Signature", lambda secret, body, at: {"X-Line-Signature": base64_of(secret, body)}),
}
TIMED = {"slack": "X-Slack-Request-Timestamp", "stripe": "Stripe-Signature", "standard-webhooks": "webhook-timestamp"}


class Scheme:
    def __init__(self, name):
        self.name = name
        self.by, self.header, self.sign = SCHEMES[name]
        self.path = f"/job/{name}"
        self.secrets = (FOLDER / name).read_text().splitlines()
        self.requests = 0
        self.failures = []
        # request ids of refusals, and a word that the log must have
        self.refusals = []

    def expect(self, status, what, headers, body=PLAIN, kind=JSON, path="", chunked=False, word=""):
        """Sends a POST and checks its answer."""
        self.requests += 1
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        try:
            pieces = iter([body[:9], body[9:]]) if chunked else body
            connection.request("POST", self.path + path, pieces, {"Content-Type": kind, **headers}, encode_chunked=chunked)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{what}: expected {status}, got no answer: {error!r}")
            return
        finally:
            connection.close()
        if answer.status != status:
            self.failures.append(f"{what}: expected {status}, got {answer.status}: {text[:300].decode(errors='replace')}")
        elif status == 200:
            self.accepted(what, text, body, kind)
        else:
            REFUSED.add(text)
            self.refusals.append((what, answer.getheader("X-Request-Id"), word))
            if not answer.getheader("WWW-Authenticate"):
                self.failures.append(f"{what}: 401 without WWW-Authenticate")
            if len(REFUSED) > 1:
                self.failures.append(f"{what}: the bodies of refusals differ: {sorted(REFUSED)}")

    def accepted(self, what, text, body, kind):
        if self.name == "slack":
            if text:
                self.failures.append(f"{what}: the answer to Slack has a body: {text[:300]}")
            return
        manifest = json.loads(text)
        if manifest["spec"]["body"] != (FIELDS if kind == FORM else json.loads(body)):
            self.failures.append(f"{what}: the filter had another body: {text[:300].decode(errors='replace')}")
        caller = json.loads(manifest["metadata"]["annotations"]["caller"])
        if not caller or caller["kind"] != "webhook" or caller["name"] != self.path:
            self.failures.append(f"{what}: the caller is {caller}")

    def changed(self, headers, change, header=None):
        header = header or self.header
        return headers | {header: change(headers[header])}

    def check(self):
        now = int(time.time())
        secret = self.secrets[0]
        right = self.sign(secret, PLAIN, now)

        for number, each in enumerate(self.secrets, 1):
            for what, body in {"a plain body": PLAIN, "white space and UTF-8": SPACED, "a large body": LARGE}.items():
                self.expect(200, f"{what}, secret {number}", self.sign(each, body, now), body)
        self.expect(200, "a form", self.sign(secret, FORM_BODY, now), FORM_BODY, FORM)
        self.expect(200, "a body in chunks", self.sign(secret, SPACED, now), SPACED, chunked=True)
        self.expect(200, "a path below", right, path="/below")

        if self.name != "gitlab":
            self.expect(401, "one byte of the body changed", right, PLAIN.replace(b"main", b"mail"))
            self.expect(401, "a line end added to the body", right, PLAIN + b"\n")
            signed = self.sign(secret, SPACED, now)
            self.expect(401, "the body written anew", signed, json.dumps(json.loads(SPACED)).encode())
            signed = self.sign(secret, FORM_BODY, now)
            self.expect(401, "a form with one byte changed", signed, FORM_BODY.replace(b"main", b"mail"), FORM)
        other = OTHER.get(self.name, "a secret that is in no file")
        self.expect(401, "another secret", self.sign(other, PLAIN, now))
        self.expect(401, "both secrets as one", self.sign(self.both(), PLAIN, now))
        self.expect(401, "no headers", {})
        self.expect(401, "no headers, on a path below", {}, path="/below")
        for header in right:
            rest = {name: value for name, value in right.items() if name != header}
            self.expect(401, f"without {header}", rest, word=header)
            self.expect(401, f"with an empty {header}", right | {header: ""})
        self.expect(401, "the signature under another name", {"X-Other": right[self.header]})
        self.expect(401, "the secret as a bearer token", {"Authorization": "Bearer " + secret.replace("é", "e")})
        self.expect(401, "a signature cut short", self.changed(right, lambda value: value[:-4]))
        self.expect(401, "a signature with one character changed", self.changed(right, self.one_character))
        if self.name in ("gitea", "line"):
            self.expect(200, "sha256= before the signature", self.changed(right, lambda value: "sha256=" + value))
        if self.name == "standard-webhooks":
            self.expect(401, "another id", right | {"webhook-id": "msg_2"})
        if self.name in TIMED:
            self.check_times(secret, now, right)
        if self.name in ("stripe", "standard-webhooks"):
            self.check_several(secret, other, now, right)
        self.check_log()

    def both(self):
        if self.name == "standard-webhooks":
            keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in self.secrets)
            return "whsec_" + base64.b64encode(b"".join(keys)).decode()
        return " ".join(self.secrets) if self.name == "gitlab" else "\n".join(self.secrets)

    def one_character(self, value):
        """Changes the tenth character from the end, where all bits of base64 count."""
        return value[:-10] + ("0" if value[-10] != "0" else "1") + value[-9:]

    def check_times(self, secret, now, right):
        for seconds, status in {-290: 200, 290: 200, -301: 401, 301: 401, -86400: 401}.items():
            # so that the clock does not reach the next second before the dispatcher reads it
            while time.time() % 1 > 0.5:
                time.sleep(0.02)
            at = int(time.time()) + seconds
            what = f"signed {abs(seconds)} s {'ago' if seconds < 0 else 'ahead'}"
            self.expect(status, what, self.sign(secret, PLAIN, at))
        header = TIMED[self.name]
        self.expect(401, "another time than was signed", self.changed(right, lambda value: value.replace(str(now), str(now - 1)), header))
        self.expect(401, "a time in words", self.changed(right, lambda value: value.replace(str(now), "today"), header))

    def check_several(self, secret, other, now, right):
        good, bad = right[self.header], self.sign(other, PLAIN, now)[self.header]
        second = self.sign(self.secrets[1], PLAIN, now)[self.header]
        if self.name == "stripe":
            time_part, good = good.split(",")
            bad, second = bad.split(",")[1], second.split(",")[1]
            older = good.replace("v1=", "v0=")
            join = lambda *parts: ",".join((time_part, *parts))
            bad_older = bad.replace("v1=", "v0=")
        else:
            older = good.replace("v1,", "v1a,")
            join = lambda *parts: " ".join(parts)
            bad_older = bad.replace("v1,", "v1a,")
        for status, what, parts in [
            (200, "a wrong signature before a right one", (bad, good)),
            (200, "a wrong signature after a right one", (good, bad)),
            (200, "signatures with both secrets", (good, second)),
            (200, "a wrong one of another version before a right one", (bad_older, good)),
            (200, "a wrong one of another version after a right one", (good, bad_older)),
            (401, "two wrong signatures", (bad, bad)),
            (401, "a right one of another version only", (older,)),
            (401, "a right one of another version and a wrong one", (older, bad)),
        ]:
            self.expect(status, what, right | {self.header: join(*parts)})

    def check_log(self):
        """The log tells operators what was wrong, which the answers do not."""
        deadline = time.monotonic() + 5
        while True:
            lines = LOG.read_text(errors="replace")
            reasons = dict(re.findall(r" (\w+) POST .* 401 .* message=\"webhook " + re.escape(self.path) + r": (.+)\"", lines))
            if all(number in reasons for _, number, _ in self.refusals) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for what, number, word in self.refusals:
            if number not in reasons:
                self.failures.append(f"{what}: the log has no reason")
            elif word.lower() not in reasons[number].lower():
                self.failures.append(f"{what}: the log does not name {word}: {reasons[number]}")


def main():
    signal.alarm(120)
    failed = False
    for name in SCHEMES:
        scheme = Scheme(name)
        scheme.check()
        by = scheme.by if scheme.by in ("hmac", "no signature") else f"{scheme.by} {version(scheme.by)}"
        for failure in scheme.failures:
            print(f"  {failure}")
            failed = True
        print(f"{'failed' if scheme.failures else 'passed'}: Python, {name} ({by}), {scheme.requests} requests", flush=True)
    sys.exit(failed)


main()
