"""A client of the hub: the PyPI package `signalrcore`. Writes what it is told, a line of JSON for each. Arguments: address,
what to do, token."""

import json
import sys
import threading

from signalrcore.hub_connection_builder import HubConnectionBuilder

address, what, token = sys.argv[1:4]
lock = threading.Lock()


def tell(line):
    with lock:
        print(json.dumps(line), flush=True)


hub = HubConnectionBuilder().with_url(address, options={"access_token_factory": lambda: token}).build()
opened, pushed = threading.Event(), threading.Event()
hub.on_open(opened.set)
hub.on_error(lambda message: tell({"error": getattr(message, "error", None)}))


def received(arguments):
    tell({"pushed": arguments[0]})
    pushed.set()


hub.on("ReceiveMessage", received)
hub.start()
if not opened.wait(20):
    sys.exit("the connection does not open")


def stream(query):
    items, over = [], threading.Event()

    def next(item):
        items.append(item)
        if query == "endless":
            tell({"item": item})

    hub.stream("ExecuteAdHoc", [query]).subscribe(
        {"next": next, "complete": lambda _: over.set(), "error": lambda _: over.set()}
    )
    return items, over


def call(method, arguments):
    answered = threading.Event()

    def answer(message):
        tell({method: message.result})
        answered.set()

    hub.send(method, arguments, on_invocation=answer)
    return answered


if what == "everything":
    items, over = stream("3 rows")
    over.wait(20)
    tell({"stream": items})
    call("GetQueryLimits", []).wait(20)
    call("JoinStreamGroup", ["orders"]).wait(20)
    pushed.wait(20)
    call("NoSuchMethod", [])
    stream("endless")
threading.Event().wait(60)
