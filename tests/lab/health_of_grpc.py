#!/usr/bin/python3
"""gRPC's health service by Google's own library, for probes to ask.

health_of_grpc.py PORT TLS_PORT BARE_PORT CERTIFICATE KEY: in the clear, over TLS, and a server without the health service,
all on 127.0.0.1. The messages are raw bytes of one field each, so that no generated code is needed. What a service is called
says what is answered:

    (none), up    SERVING
    down          NOT_SERVING
    lost          UNKNOWN, which is 0 and so stands for a message without content
    hung          nothing, until the asker goes
    private       UNAUTHENTICATED
    broken        an exception in the server, which its library makes UNKNOWN (2) of
    others        NOT_FOUND

The file may not be called grpc_health.py: the library looks for a module of that name, and would run this one again.
"""
import concurrent.futures
import sys
import threading

import grpc

port, tls_port, bare_port, certificate, key = sys.argv[1:6]

SERVING = {b"": b"\x08\x01", b"up": b"\x08\x01", b"down": b"\x08\x02", b"lost": b""}
# More than a test has questions that hang: each keeps a thread.
WORKERS = 8


def service_of(request):
    """The name in HealthCheckRequest { service = 1 }; shorter than 128 bytes, so its length is one byte."""
    if not request:
        return b""
    if request[0] != 0x0A or request[1] >= 0x80 or request[1] != len(request) - 2:
        raise ValueError("not a HealthCheckRequest with a short name: " + request.hex())
    return request[2:]


def check(request, context):
    service = service_of(request)
    if service in SERVING:
        return SERVING[service]
    if service == b"hung":
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait()
        return b""
    if service == b"private":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "log in first")
    if service == b"broken":
        raise RuntimeError("broken on purpose")
    context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")


def server(*handlers):
    workers = concurrent.futures.ThreadPoolExecutor(max_workers=WORKERS)
    # A port that somebody else has is an error, and not shared with them.
    return grpc.server(workers, handlers=handlers, options=[("grpc.so_reuseport", 0)])


# Check alone: Watch, and all else, is unimplemented.
method = grpc.unary_unary_rpc_method_handler(check)
healthy = server(grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}))
bare = server()
with open(certificate, "rb") as certificate_file, open(key, "rb") as key_file:
    pair = (key_file.read(), certificate_file.read())
healthy.add_insecure_port(f"127.0.0.1:{port}")
healthy.add_secure_port(f"127.0.0.1:{tls_port}", grpc.ssl_server_credentials([pair]))
bare.add_insecure_port(f"127.0.0.1:{bare_port}")
healthy.start()
bare.start()
healthy.wait_for_termination()
