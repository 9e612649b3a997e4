"""The yardstick, as a process of its own: an empty FastAPI POST with a small pydantic body, on uvicorn with uvloop.

Prints its URL when it answers, and ends with its standard input.
"""

import asyncio
import json
import socket
import sys

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """About as much as a small call carries."""

    epoch: int
    tool: str
    resource: str
    amount: int


app = FastAPI()


@app.post("/empty")
async def empty(body: Body) -> Body:
    """Give it back."""
    return body


async def main() -> None:
    """Serve on a free port until the parent closes the pipe."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    print(json.dumps({"url": f"http://127.0.0.1:{bound.getsockname()[1]}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(main())
