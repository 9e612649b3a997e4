"""Exit code 0 if the broker of this container answers `/healthz`, else 1. Standard library only.

It reads the broker's own settings. With TLS, the configured certificate itself has to be presented; the name in it is
the broker's for its clients and not 127.0.0.1.
"""

# ruff: noqa: INP001 - copied into the image as it is, never imported

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

PREFIX = "STEPGRANT_BROKER_"
PATIENCE_S = 3.0


def connection() -> HTTPConnection:
    """To the broker on this host's loopback; nothing is sent yet."""
    port = int(os.environ.get(f"{PREFIX}PORT", "8423"))
    certificate = os.environ.get(f"{PREFIX}TLS_CERT", "")
    if not certificate:
        return HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=context)


def main() -> int:
    """Ask once."""
    try:
        asked = connection()
        asked.request("GET", "/healthz")
        return 0 if asked.getresponse().status == 200 else 1  # noqa: PLR2004
    except (OSError, HTTPException, ValueError) as error:
        print(f"the broker does not answer: {error}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
