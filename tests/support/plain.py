"""Clients of plain HTTP, which every server of a test speaks."""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `verify=`: without it each client, and so each `httpx.get`, first reads every root certificate, 20 ms of computing."""
