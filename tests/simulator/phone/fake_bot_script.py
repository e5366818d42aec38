"""The fake bot as a script with the arguments of Pipecat's runner."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.simulator.phone.fake_bot import FakeBot


def status_page(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(HTTPStatus.OK, "{}") if request.path == "/status" else None


class LoggingBot(FakeBot):
    def _log(self, event: str, **fields: object) -> None:
        entry = {"time_s": time.time(), "call_id": self.events("start")[0]["start"]["callSid"], "event": event}
        with Path(os.environ["VOICE_LLM_CALL_LOG"]).open("a", encoding="utf-8") as log:
            log.write(json.dumps({**entry, **fields}) + "\n")

    def _say(self, socket: ServerConnection, stream: str, seconds: float) -> None:
        if self.replies:
            self._log("transcript", text="what was heard", interim=False)
            self._log("user_said", text="what was heard")
            for event in ("user_turn_ended", "first_token", "first_chunk", "first_audio"):
                self._log(event)
        super()._say(socket, stream, seconds)
        self._log("bot_said", text="what was said", interrupted=False)

    async def _serve(self, socket: ServerConnection) -> None:
        await super()._serve(socket)
        self._log("call_ended")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-t")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--die", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--silent", action="store_true")
    arguments = parser.parse_args()
    print(f"pid {os.getpid()}", flush=True)
    if arguments.die:
        sys.exit("the model file is missing")
    if arguments.hang:
        await asyncio.Event().wait()
    bot = LoggingBot(greeting_s=0.5, reply_s=3.0, silent=arguments.silent)
    async with serve(bot._serve, arguments.host, arguments.port, process_request=status_page):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
