"""Many real python-socketio clients with one session each, which none of them takes up again.

Argument: { url, network, crowds: { polling: count, upgrade: count }, messages }.
Prints { sessions } when every session is through or broken.
"""

import asyncio
import json
import os
import sys
import threading

import aiohttp
import socketio

ARGUMENT = json.loads(sys.argv[1])
MESSAGES = ARGUMENT["messages"]
TRANSPORTS = {"polling": ["polling"], "upgrade": ["polling", "websocket"]}


async def session(mode, number):
    report = dict(client="python-socketio", mode=mode, server=None, acknowledged=0, pushed=0, inOrder=True, broken=None)
    # Headers given to connect() are those of the handshake alone.
    headers = {"X-Forwarded-For": f"10.{ARGUMENT['network']}.{number}.1"}
    http = aiohttp.ClientSession(headers=headers)
    client = socketio.AsyncClient(reconnection=False, request_timeout=30, http_session=http)
    welcomed, pushed, broken = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @client.on("welcome")
    def welcome(server, identity):
        if client.get_sid() != identity:
            report["broken"] = f"known as {identity} there and as {client.get_sid()} here"
        report["server"] = server
        welcomed.set()

    @client.on("push")
    def push(number):
        report["inOrder"] &= number == report["pushed"]
        report["pushed"] += 1
        if report["pushed"] == MESSAGES:
            pushed.set()

    @client.on("disconnect")
    def disconnect(reason):
        report["broken"] = str(reason)
        broken.set()

    async def talk():
        # One second, the default, is short when many connect on a busy machine.
        await client.connect(ARGUMENT["url"], transports=TRANSPORTS[mode], wait_timeout=30)
        await welcomed.wait()
        for message in range(MESSAGES):
            await client.call("message", message)
            report["acknowledged"] += 1
        await pushed.wait()

    talking, breaking = asyncio.create_task(talk()), asyncio.create_task(broken.wait())
    await asyncio.wait([talking, breaking], return_when=asyncio.FIRST_COMPLETED)
    if talking.done() and talking.exception():
        report["broken"] = repr(talking.exception())
    return {**report, "transport": client.transport() if client.connected else None}


async def main():
    modes = [mode for mode, count in ARGUMENT["crowds"].items() for _ in range(count)]
    sessions = await asyncio.gather(*(session(mode, number) for number, mode in enumerate(modes)))
    print(json.dumps({"sessions": sessions}), flush=True)
    await asyncio.Event().wait()


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
asyncio.run(main())
