"""The HTTP door: the canonical routes, the dialects of the lab systems, and what keeps bad clients harmless.

`connection.py` limits a connection, `app.py` takes a request through the checks of `access.py` to its row in
`routes.py`, `kv.py`, `admin.py` and `dialects.py` answer it, and `problem.py` says what went wrong.
"""

from retinue.http.app import App
from retinue.http.server import HttpDoor

__all__ = ["App", "HttpDoor"]
