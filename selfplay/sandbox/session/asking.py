"""Runs inside a session's sandbox: `python /in/reference.py WORDS < INPUT` runs a program that
this sandbox does not hold, and ends as it ended: same output, errors and exit code.

A program of its own: standard library alone, Python 3.8 or newer. The session's first process
passes the question on; the harness runs the program in a sandbox beside this one (`helper.py`).
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys

DESK = "\0selfplay-reference"
NOT_RUN = 125


def main() -> int:
    """Exit code of the program, 125 where it could not be run to its end."""
    request = {
        "argv": [base64.b64encode(os.fsencode(word)).decode() for word in sys.argv[1:]],
        "stdin": base64.b64encode(sys.stdin.buffer.read()).decode(),
    }
    with socket.socket(socket.AF_UNIX) as desk:
        desk.connect(DESK)
        desk.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(b"".join(iter(lambda: desk.recv(1 << 16), b"")) or b"{}")
    if "exit_code" not in answer:
        sys.stderr.write(f"reference: {answer.get('problem', 'no answer')}\n")
        return NOT_RUN
    sys.stdout.buffer.write(base64.b64decode(answer["stdout"]))
    sys.stdout.flush()
    sys.stderr.buffer.write(base64.b64decode(answer["stderr"]))
    return int(answer["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
