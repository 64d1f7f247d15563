"""Who may connect, and what he may do then: users, passwords, NKeys, JWTs, certificates, permissions."""

from mq9_broker.auth.access import Access, JwtAccess, User
from mq9_broker.auth.authenticator import Authenticator
from mq9_broker.auth.identity import Credentials, Identity
from mq9_broker.auth.permissions import Permissions

__all__ = ["Access", "Authenticator", "Credentials", "Identity", "JwtAccess", "Permissions", "User"]
