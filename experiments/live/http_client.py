"""A client of the service over one connection."""

import http.client
import json
import time
from typing import Any
from urllib.parse import quote

from recjax.common.errors import UserError

MAX_IDLE = 2.0  # seconds; uvicorn closes connections after five


class HttpClient:
    """Sends JSON to a service on this machine, and reads JSON.

    Args:
      port: port of the service.
    """

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._last_use = time.monotonic()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def get(self, path: str) -> Any:
        """Returns the JSON value of an answer.

        Raises:
          UserError: the answer is an error.
        """
        return self._read("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """Sends a JSON value; returns as `get` does."""
        return self._read("POST", path, json.dumps(body))

    def knows(self, item: str) -> bool:
        """Returns whether the catalogue has an item."""
        status, _ = self._request("GET", f"/items/{quote(item, safe='')}/neighbors?k=1")
        return status == 200

    def _read(self, method: str, path: str, body: str | None = None) -> Any:
        status, content = self._request(method, path, body)
        if status != 200:
            raise UserError(f"{method} {path}: {status} {content}")
        return content

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        if time.monotonic() - self._last_use > MAX_IDLE:
            self._connection.close()  # it opens again; the service may have closed it
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._last_use = time.monotonic()
        return answer.status, json.loads(content)
