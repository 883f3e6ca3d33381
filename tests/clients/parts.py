"""What Python's email package finds in messages: a line of JSON for each file named, with its named parts."""

import base64
import email
import json
import re
import sys


def leaves(message):
    for part in message.get_payload() if message.is_multipart() else []:
        if part.get_content_maintype() != "message":
            yield from leaves(part) if part.is_multipart() else [part]


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        sent = re.sub(rb"\r?\n", b"\r\n", file.read())
    found = []
    try:
        for part in leaves(email.message_from_bytes(sent)):
            if part.get_filename():
                found.append([str(part.get_filename()), base64.b64encode(part.get_payload(decode=True) or b"").decode()])
    except Exception as error:  # what it cannot read, it cannot be compared with
        found = []
        print(path, error, file=sys.stderr)
    print(json.dumps({"path": path, "attachments": found}))
