"""grpcio, the gRPC client of C++, Python, Ruby and PHP, calls a running Talos in every way that its settings allow.

    grpc_client.py AUTHZ_ADDRESS GOOD_REQUEST BAD_REQUEST

The requests are CheckRequests in hexadecimal: one that is allowed, one that is denied. Each case is a function with a
name; the script prints the names of those that fail, with the reason, and ends with exit code 1 if there is one.
"""

import concurrent.futures
import sys
import threading
import time
import traceback

import grpc

ADDRESS, GOOD, BAD = sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])

CHECK = "/envoy.service.auth.v3.Authorization/Check"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = {
    "v1": "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "v1alpha": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}
# Seconds that a call may take on a busy machine.
PATIENCE = 60
# Largest list of header fields, as the server announces it (SETTINGS_MAX_HEADER_LIST_SIZE).
MAX_HEADERS = 64 * 1024

CASES = []


def case(name, waits=False):
    """Enters a function into the table of cases; one that mostly waits is run beside the others."""

    def enter(function):
        CASES.append((name, function, waits))
        return function

    return enter


class Client:
    """A channel of its own connection, and the calls that the server knows."""

    def __init__(self, **options):
        # Channels with the same settings share a connection unless told not to.
        given = [("grpc.use_local_subchannel_pool", 1), *((f"grpc.{name}", value) for name, value in options.items())]
        self.channel = grpc.insecure_channel(ADDRESS, options=given)
        self.check = self.channel.unary_unary(CHECK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def health(self, method, request=b""):
        return self.channel.unary_unary(HEALTH + method)(request, timeout=PATIENCE)

    def watch(self, service="", timeout=PATIENCE):
        return self.channel.unary_stream(HEALTH + "Watch")(field(1, service), timeout=timeout)

    def reflect(self, questions, version="v1", timeout=PATIENCE):
        return self.channel.stream_stream(REFLECTION[version])(questions, timeout=timeout)

    def must_allow(self, times=1, **given):
        for _ in range(times):
            allows(self.check(GOOD, **{"timeout": PATIENCE, **given}))


def option(name, value):
    """A channel's setting, whose name has dots."""
    return {name: value}


def varint(number):
    """A number as protobuf writes it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """A field of bytes or text; empty when it has its default."""
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2]) + varint(len(value)) + value if value else b""


def grown(request, size):
    """A CheckRequest with an unknown field (15) that makes it larger."""
    return request + field(15, bytes(size))


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def allows(answer):
    """Asserts the answer that lets a request pass: status 0, which isn't written, and an OkHttpResponse (field 3)."""
    must(b"x-talos-actor-id" in answer, f"not allowed: {answer[:200]!r}")


def denies(answer):
    must(b"x-talos-actor-id" not in answer and b"invalid_token" in answer, f"not denied: {answer[:300]!r}")


def code_of(call):
    """The status with which a call fails; OK when it doesn't."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def fails(call, *codes):
    code = code_of(call)
    must(code in codes, f"{code} instead of {' or '.join(map(str, codes))}")


# ---- Metadata ------------------------------------------------------------------------------------------------------


def with_metadata(*pairs, **options):
    with Client(**option("max_metadata_size", 1 << 20), **options) as client:
        client.must_allow(metadata=pairs)
        client.must_allow()


@case("metadata of 1 KB")
def _():
    with_metadata(("x-long", "a" * 1_000))


@case("metadata of 16 KB")
def _():
    with_metadata(("x-long", "a" * 16_000))


@case("metadata of 60 KB in one entry")
def _():
    with_metadata(("x-long", "a" * 60_000))


@case("metadata of 60 KB in 300 entries")
def _():
    with_metadata(*((f"x-{number:04}", "a" * (200 - 6 - 32)) for number in range(300)))


@case("binary metadata of 40 KB")
def _():
    with_metadata(("x-long-bin", bytes(range(256)) * 160))


@case("metadata with an empty value and with all of ASCII")
def _():
    with_metadata(("x-empty", ""), ("x-ascii", "".join(map(chr, range(0x21, 0x7F)))))


@case("metadata of one name many times")
def _():
    with_metadata(*(("x-same", str(number)) for number in range(500)))


@case("metadata that is the same in 300 calls")
def _():
    with Client() as client:
        client.must_allow(300, metadata=[("x-constant", "a" * 2_000), ("x-other", "b" * 500)])


@case("metadata that is another in each of 300 calls")
def _():
    with Client() as client:
        for number in range(300):
            client.must_allow(metadata=[(f"x-name-{number}", f"{number}" * 100), ("x-value", f"{number}" * 50)])


@case("metadata beyond the announced limit is refused, and the next call answered")
def _():
    with Client() as client:
        client.must_allow()
        refused = lambda: client.check(GOOD, metadata=[("x-long", "a" * (MAX_HEADERS + 1_000))], timeout=PATIENCE)
        code = code_of(refused)
        must(code is not grpc.StatusCode.OK, "it was taken")
        client.must_allow(3)


# ---- Deadlines -----------------------------------------------------------------------------------------------------


@case("a deadline of an hour")
def _():
    with Client() as client:
        client.must_allow(timeout=3_600)


@case("no deadline")
def _():
    with Client() as client:
        client.must_allow(timeout=None)


@case("300 deadlines of a millisecond")
def _():
    with Client() as client:
        client.must_allow()
        codes = {code_of(lambda: client.check(GOOD, timeout=0.001)) for _ in range(300)}
        must(codes <= {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}, codes)
        client.must_allow()


@case("a deadline ends Watch")
def _():
    with Client() as client:
        began = time.monotonic()
        states = client.watch(timeout=2)
        must(next(states) == b"\x08\x01", "not SERVING")
        fails(lambda: next(states), grpc.StatusCode.DEADLINE_EXCEEDED)
        must(time.monotonic() - began > 1.5, "it ended before its deadline")
        client.must_allow()


@case("a deadline ends a stream of reflection")
def _():
    with Client() as client:
        done = threading.Event()

        def questions():
            yield field(7, "*")
            done.wait(PATIENCE)

        answers = client.reflect(questions(), timeout=2)
        next(answers)
        fails(lambda: next(answers), grpc.StatusCode.DEADLINE_EXCEEDED)
        done.set()
        client.must_allow()


# ---- Cancellations -------------------------------------------------------------------------------------------------


@case("a call cancelled at once")
def _():
    with Client() as client:
        client.must_allow()
        call = client.check.future(GOOD, timeout=PATIENCE)
        call.cancel()
        client.must_allow()


@case("1,000 calls cancelled")
def _():
    with Client() as client:
        client.must_allow()
        calls = [client.check.future(GOOD, timeout=PATIENCE) for _ in range(1_000)]
        for call in calls:
            call.cancel()
        client.must_allow(10)


@case("every second of 400 calls cancelled, the others answered")
def _():
    with Client() as client:
        calls = [client.check.future(GOOD, timeout=PATIENCE) for _ in range(400)]
        for call in calls[::2]:
            call.cancel()
        for call in calls[1::2]:
            allows(call.result())


@case("Watch cancelled")
def _():
    with Client() as client:
        for _ in range(20):
            states = client.watch()
            must(next(states) == b"\x08\x01", "not SERVING")
            states.cancel()
            fails(lambda states=states: next(states), grpc.StatusCode.CANCELLED)
        client.must_allow()


@case("a stream of reflection cancelled")
def _():
    with Client() as client:
        for _ in range(20):
            done = threading.Event()

            def questions(done=done):
                yield field(7, "*")
                done.wait(PATIENCE)

            answers = client.reflect(questions())
            next(answers)
            answers.cancel()
            done.set()
        client.must_allow()


@case("a channel closed with calls under way")
def _():
    with Client() as other:
        for _ in range(5):
            client = Client()
            calls = [client.check.future(GOOD, timeout=PATIENCE) for _ in range(100)]
            client.channel.close()
            for call in calls:
                code_of(call.result)
        other.must_allow()


# ---- Keepalive -----------------------------------------------------------------------------------------------------

EVERY_SECOND = {
    "keepalive_time_ms": 1_000,
    "keepalive_timeout_ms": 20_000,
    "http2.max_pings_without_data": 0,
}


@case("keepalive at 1 s beside an open Watch", waits=True)
def _():
    with Client(**EVERY_SECOND) as client:
        states = client.watch()
        must(next(states) == b"\x08\x01", "not SERVING")
        time.sleep(6)
        states.cancel()
        client.must_allow()


@case("keepalive at 1 s without calls", waits=True)
def _():
    with Client(**EVERY_SECOND, keepalive_permit_without_calls=1) as client:
        client.must_allow()
        time.sleep(6)
        client.must_allow()


@case("keepalive at 1 s beside Checks", waits=True)
def _():
    with Client(**EVERY_SECOND, keepalive_permit_without_calls=1) as client:
        for _ in range(15):
            client.must_allow()
            time.sleep(0.4)


@case("keepalive at 1 s on 50 channels", waits=True)
def _():
    clients = [Client(**EVERY_SECOND, keepalive_permit_without_calls=1) for _ in range(50)]
    for client in clients:
        client.must_allow()
    time.sleep(5)
    for client in clients:
        client.must_allow()
        client.channel.close()


# ---- Many at once --------------------------------------------------------------------------------------------------


def at_once(clients, count, request=GOOD, judge=allows):
    calls = [clients[number % len(clients)].check.future(request, timeout=PATIENCE) for number in range(count)]
    for call in calls:
        judge(call.result())


@case("3,000 Checks at once over one connection")
def _():
    with Client() as client:
        at_once([client], 3_000)


@case("3,000 Checks at once over ten connections")
def _():
    clients = [Client() for _ in range(10)]
    at_once(clients, 3_000)
    for client in clients:
        client.channel.close()


@case("3,000 denied Checks at once")
def _():
    with Client() as client:
        at_once([client], 3_000, BAD, denies)


@case("50 threads with a connection each")
def _():
    def work(_):
        with Client() as client:
            client.must_allow(20)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))


@case("100 connections, one after the other")
def _():
    for _ in range(100):
        with Client() as client:
            client.must_allow()


@case("100 Watches at once, and Checks beside them")
def _():
    with Client() as client:
        watches = [client.watch() for _ in range(100)]
        for states in watches:
            must(next(states) == b"\x08\x01", "not SERVING")
        client.must_allow(20)
        for states in watches:
            states.cancel()


# ---- Windows and frames --------------------------------------------------------------------------------------------


def with_options(count=300, size=2_000, **options):
    """Checks under settings of the channel, many at once, their requests longer than a small window."""
    with Client(**options) as client:
        at_once([client], count, grown(GOOD, size))
        client.must_allow()


@case("a stream's window of 5 bytes")
def _():
    with_options(50, **option("http2.lookahead_bytes", 5), **option("http2.bdp_probe", 0))


@case("a stream's window of 16 MB")
def _():
    with_options(**option("http2.lookahead_bytes", 16 << 20))


@case("windows without probes")
def _():
    with_options(**option("http2.bdp_probe", 0))


@case("frames of 16 KB")
def _():
    with_options(100, 100_000, **option("http2.max_frame_size", 16_384))


@case("frames of 16 MB")
def _():
    with_options(20, 1_000_000, **option("http2.max_frame_size", (1 << 24) - 1))


@case("writes of a few bytes")
def _():
    with_options(100, 20_000, **option("http2.write_buffer_size", 16))


# ---- HPACK ---------------------------------------------------------------------------------------------------------


@case("no HPACK table for answers")
def _():
    with_options(**option("http2.hpack_table_size.decoder", 0))


@case("an HPACK table of 64 KB for answers")
def _():
    with_options(**option("http2.hpack_table_size.decoder", 65_536))


@case("no HPACK table for requests")
def _():
    with Client(**option("http2.hpack_table_size.encoder", 0)) as client:
        client.must_allow(100, metadata=[("x-constant", "a" * 500)])


@case("an HPACK table of 64 KB for requests")
def _():
    with Client(**option("http2.hpack_table_size.encoder", 65_536)) as client:
        for number in range(200):
            client.must_allow(metadata=[(f"x-{number % 90}", "a" * 500), ("x-constant", "b" * 500)])


# ---- Messages ------------------------------------------------------------------------------------------------------


@case("a message of 3.9 MB")
def _():
    with Client() as client:
        allows(client.check(grown(GOOD, 3_900_000), timeout=PATIENCE))


@case("a message of more than 4 MiB fails one call alone")
def _():
    with Client() as client:
        client.must_allow()
        fails(lambda: client.check(grown(GOOD, 4 << 20), timeout=PATIENCE), grpc.StatusCode.RESOURCE_EXHAUSTED)
        client.must_allow()


@case("a compressed message fails one call alone")
def _():
    with Client() as client:
        client.must_allow()
        # grpcio sends short messages as they are.
        packed = lambda: client.check(grown(GOOD, 10_000), timeout=PATIENCE, compression=grpc.Compression.Gzip)
        fails(packed, grpc.StatusCode.UNIMPLEMENTED)
        client.must_allow()


# ---- Health, reflection, and what isn't there ----------------------------------------------------------------------


@case("health: Check of the server, of the service and of an unknown one")
def _():
    with Client() as client:
        must(client.health("Check") == b"\x08\x01", "the server isn't SERVING")
        must(client.health("Check", field(1, "envoy.service.auth.v3.Authorization")) == b"\x08\x01", "not SERVING")
        fails(lambda: client.health("Check", field(1, "no.such.Service")), grpc.StatusCode.NOT_FOUND)


@case("health: Watch of the service and of an unknown one")
def _():
    with Client() as client:
        states = client.watch("envoy.service.auth.v3.Authorization")
        must(next(states) == b"\x08\x01", "not SERVING")
        states.cancel()
        states = client.watch("no.such.Service", timeout=PATIENCE)
        fails(lambda: must(next(states) == b"\x08\x03", "not SERVICE_UNKNOWN"), grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
        states.cancel()


@case("health: List")
def _():
    with Client() as client:
        # Older releases of the server's library don't have it.
        code = code_of(lambda: must(b"envoy.service.auth.v3" in client.health("List"), "the service isn't listed"))
        must(code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED), code)
        client.must_allow()


@case("reflection: services and files, by both versions")
def _():
    with Client() as client:
        for version in REFLECTION:
            questions = [field(7, "*"), field(4, "envoy.service.auth.v3.Authorization")]
            answers = list(client.reflect(iter(questions), version))
            must(len(answers) == 2, f"{len(answers)} answers")
            must(b"grpc.health.v1.Health" in answers[0], "health isn't listed")
            must(b"CheckRequest" in answers[1], "the file isn't there")
            unknown = client.reflect(iter([field(4, "no.such.Symbol")]), version)
            fails(lambda unknown=unknown: next(unknown), grpc.StatusCode.NOT_FOUND)


@case("methods and services that aren't there")
def _():
    with Client() as client:
        for path in ["/envoy.service.auth.v3.Authorization/Nothing", "/talos.Nowhere/Nothing", HEALTH + "Nothing"]:
            call = client.channel.unary_unary(path)
            fails(lambda call=call: call(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)
        client.must_allow()


def attempt(name, run):
    """Runs a case; whether it passed."""
    began = time.monotonic()
    try:
        run()
    except Exception:
        print(f"FAILED: {name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    print(f"ok: {name}, {time.monotonic() - began:.1f} s", flush=True)
    return True


def main():
    passed = {}
    with concurrent.futures.ThreadPoolExecutor() as beside:
        waiting = {name: beside.submit(attempt, name, run) for name, run, waits in CASES if waits}
        passed.update({name: attempt(name, run) for name, run, waits in CASES if not waits})
        passed.update({name: result.result() for name, result in waiting.items()})
    failed = [name for name, has_passed in passed.items() if not has_passed]
    print(f"{len(CASES)} cases, {len(failed)} failed")
    if failed:
        print("failed: " + "; ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
