"""An adapter around no SDK at all: one NATS request by hand. FAKE says what is wrong with it."""

import json
import os
import socket
import sys
import time

WRONG = os.environ.get("FAKE", "")


def write(line):
    sys.stdout.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    sys.stdout.flush()


def request(url, subject, payload):
    host, port = url.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        stream = connection.makefile("rwb")
        assert stream.readline().startswith(b"INFO ")
        stream.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.1 1\r\n')
        stream.write(f"PUB {subject} in.1 {len(payload)}\r\n".encode() + payload + b"\r\n")
        stream.flush()
        head = stream.readline().split()
        return stream.read(int(head[-1]) + 2)[:-2]


def send(url, args):
    payload = args.get("payload_text", "").encode() + (b"!" if WRONG == "loud" else b"")
    reply = json.loads(request(url, f"$mq9.AI.MSG.SEND.{args['mail_address']}", payload))
    if reply["error"]:
        return {"error": {"kind": "server", "code": reply.get("code"), "message": reply["error"]}}
    return {"ok": reply["msg_id"] if WRONG == "number" else str(reply["msg_id"])}


def main():
    urls = {}
    for line in sys.stdin:
        message = json.loads(line)
        number, name = message["id"], message["op"]
        if WRONG == "silent" and name == "send":
            continue
        if WRONG == "dies" and name == "send":
            sys.stderr.write("out of coffee\n")
            sys.exit(3)
        if WRONG == "garbage" and name == "send":
            write("Traceback: no JSON at all")
        if WRONG == "chatty" and name == "hello":
            write("Welcome!")
            sys.exit(0)
        if WRONG == "misspelt" and name == "hello":
            write({"id": number, "okay": {"sdk": "fake"}})
            continue
        if name == "hello":
            answer = {"ok": {"sdk": "fake", "sdk_version": "0.1", "spec": "1.0", "features": []}}
        elif name == "connect":
            urls[message["client"]] = message["args"]["servers"]
            answer = {"ok": {}}
        elif name == "send":
            answer = send(urls[message["client"]], message["args"])
        elif name == "close":
            answer = {"ok": {}}
        else:
            answer = {"harness_error": f"no operation {name}"}
        write({"id": number + 100 if WRONG == "ids" and name == "send" else number, **answer})
    if WRONG == "stays":
        time.sleep(60)


main()
