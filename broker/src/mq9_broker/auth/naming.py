"""Mailboxes that a request names in its body, where permissions for its subject alone would not protect them.

MAILBOX.CREATE has the address of the new mailbox in its body, and that of the one for its dead letters. Who
may publish to `$mq9.AI.MAILBOX.CREATE` may make mailboxes whose address the broker chooses. A name needs
`$mq9.AI.MAILBOX.CREATE.{name}` too, and dead letters, which the broker sends for him, need
`$mq9.AI.MSG.SEND.{dead_letter}`.
"""

from typing import Final

import msgspec

from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.auth.permissions import Permissions

_SUBJECTS: Final = {operation.name: operation.subject for operation in OPERATIONS}
_CREATE: Final = _SUBJECTS["mailbox.create"]
# Fields of its body, each with what stands before the address in the subject that permissions are asked for.
_NAMED: Final = {"name": _CREATE, "dead_letter": _SUBJECTS["msg.send"]}


def forbidden(permissions: Permissions, subject: bytes, body: bytes) -> str:
    """The subject to which a user would have to be allowed to publish, and is not; "" for none."""
    if not permissions.may_publish(subject):
        return subject.decode(errors="backslashreplace")
    if subject != _CREATE or not body:
        return ""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nothing is made of it
        return ""
    if isinstance(fields, dict):
        for field, prefix in _NAMED.items():
            address = fields.get(field)
            if address and isinstance(address, str):
                needed = b"%b.%b" % (prefix, address.encode(errors="replace"))
                if not permissions.may_publish(needed):
                    return needed.decode(errors="backslashreplace")
    return ""
