"""Serves a driver to imgcache-host: what package sdk/serve does for Go.

A plugin is a program that the host starts. It listens on a unix socket, says
where in one line on standard output, and answers the gRPC services of
imgcache/plugin/v1/*.proto there. It ends with the host.
"""

import json
import os
import signal
import sys
import tempfile
import threading
from concurrent import futures
from datetime import datetime, timezone

import grpc

from imgcache.plugin.v1 import driver_pb2, plugin_pb2

COOKIE = ("IMGCACHE_PLUGIN", "5d0e2d1c-imgcache-host-plugin")
PROTOCOL = "1"
LIFELINE_FD = 3
MAX_MESSAGE = 64 << 20
LIST_BATCH = 1000
MAX_ID = 128  # bytes


class Invalid(Exception):
    """The host asks for what no driver may do."""


def log(level, message, **attributes):
    """Writes a line to the log of the host. Standard output is not ours."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = {"@level": level, "@message": message, "@timestamp": now, **attributes}
    print(json.dumps(line), file=sys.stderr, flush=True)


def main(manifest, driver):
    """Serves until the host ends.

    The driver has configure(request), list() and apply(request). They may be
    called by several threads at once, but apply only by one at a time. They
    raise Invalid for what the host should not repeat; after any other
    exception it does.
    """
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(manifest, indent=2))
        return
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        sys.exit("this is a plugin of imgcache-host and is started by it: name it in a driver block, "
                 "or run it with --describe to see what it is")
    if PROTOCOL not in os.environ.get("PLUGIN_PROTOCOL_VERSIONS", PROTOCOL).split(","):
        sys.exit("the host does not speak version %s of the contract" % PROTOCOL)
    watch_lifeline()

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)],
    )
    server.add_generic_rpc_handlers(services(manifest, driver))
    sockets = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
    path = os.path.join(sockets, "plugin%d" % os.getpid())
    server.add_insecure_port("unix:" + path)
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print("1|%s|unix|%s|grpc|" % (PROTOCOL, path), flush=True)
    ended.wait()
    server.stop(grace=5).wait()


def watch_lifeline():
    """Ends the process when the host does, however that happens."""
    if not os.environ.get("IMGCACHE_LIFELINE"):
        return

    def watch():
        while os.read(LIFELINE_FD, 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def services(manifest, driver):
    """Returns the handlers of what a driver answers."""

    def describe(_request, _context):
        return plugin_pb2.DescribeResponse(**manifest)

    def configure(request, context):
        answer(context, driver.configure, request)
        return plugin_pb2.ConfigureResponse()

    def apply(request, context):
        answer(context, validate, request)
        answer(context, driver.apply, request)
        return driver_pb2.ApplyResponse()

    def list_all(_request, context):
        batch = []
        for entry in driver.list():
            batch.append(entry)
            if len(batch) == LIST_BATCH:
                if not context.is_active():
                    return
                yield driver_pb2.ListResponse(entries=batch)
                batch = []
        if batch:
            yield driver_pb2.ListResponse(entries=batch)

    return (
        service("imgcache.plugin.v1.PluginService", {
            "Describe": unary(describe, plugin_pb2.DescribeRequest),
            "Configure": unary(configure, plugin_pb2.ConfigureRequest),
        }),
        service("imgcache.plugin.v1.DriverService", {
            "Apply": unary(apply, driver_pb2.ApplyRequest),
            "List": grpc.unary_stream_rpc_method_handler(list_all, driver_pb2.ListRequest.FromString, encode),
        }),
    )


def service(name, methods):
    return grpc.method_handlers_generic_handler(name, methods)


def unary(function, request):
    return grpc.unary_unary_rpc_method_handler(function, request.FromString, encode)


def encode(message):
    return message.SerializeToString()


def answer(context, function, request):
    """Calls function; what is invalid, and what fails, the host is told."""
    try:
        function(request)
    except Invalid as e:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
    except Exception as e:
        context.abort(grpc.StatusCode.UNAVAILABLE, "%s: %s" % (type(e).__name__, e))


def validate(batch):
    """Refuses a batch that no driver may apply."""
    if not batch.source or not batch.seq:
        raise Invalid("batch without source or sequence number")
    for i, op in enumerate(batch.ops):
        if op.kind not in (driver_pb2.OP_KIND_PUT, driver_pb2.OP_KIND_DELETE, driver_pb2.OP_KIND_TOUCH):
            raise Invalid("operation %d has the unknown kind %d" % (i, op.kind))
        if not 1 <= len(op.entry.id.encode()) <= MAX_ID or op.entry.size < 0:
            raise Invalid("operation %d has an impossible id or size" % i)
