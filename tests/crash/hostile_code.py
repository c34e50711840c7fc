"""Steps that do to their process whatever they can: the workflow file of `test_hostile_steps`."""

from __future__ import annotations

CODE = r"""
import asyncio, ctypes, gc, logging.config, os, random, resource, signal, socket, sys, threading, time, warnings
from outlast import step, workflow

def effect(text):
    with open(os.environ["EFFECTS"], "a") as file:
        file.write(text + "\n"); file.flush(); os.fsync(file.fileno())

class Odd(BaseException):
    pass

# Python 3.11 aborts ("Cannot recover from stack overflow") where one thread lowers the limit while another one is deeper than that,
# and the collector calls back there. No engine in that process survives it.
DEPTH = threading.Lock()

def harm(kind):
    if kind == "exits": os._exit(3)
    if kind == "segfault": ctypes.string_at(0)
    if kind == "forks":
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
    if kind == "forks and goes on":
        if (pid := os.fork()) == 0:
            effect("child")
            return "child"
        os.waitpid(pid, 0)
    if kind == "forks and exits":
        if (pid := os.fork()) == 0: sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    if kind == "leaks threads":
        for _ in range(50): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    if kind == "leaks a thread that is no daemon": threading.Thread(target=time.sleep, args=(3,)).start()
    if kind == "raises BaseException": raise Odd("odd")
    if kind == "raises KeyboardInterrupt": raise KeyboardInterrupt
    if kind == "raises SystemExit": raise SystemExit(0)
    if kind == "raises GeneratorExit": raise GeneratorExit
    if kind == "raises CancelledError": raise asyncio.CancelledError
    if kind == "raises StopIteration": raise StopIteration(3)
    if kind == "returns a lambda": return lambda: None
    if kind == "returns itself": loop = []; loop.append(loop); return loop
    if kind == "closes the standard streams":
        sys.stdout.close(); sys.stderr.close(); sys.stdin.close()
        for fd in (0, 1, 2): os.close(fd)
    if kind == "closes every file": os.closerange(3, 4096)
    if kind == "chdir": os.chdir("/")
    if kind == "umask": os.umask(0o777)
    if kind == "signals": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "recursion":
        def deep(n): return n if n == 0 else deep(n - 1)
        def endless(): return endless()
        with DEPTH:
            sys.setrecursionlimit(1_000_000)
            deep(20_000)
            sys.setrecursionlimit(3_000)
            endless()
    if kind == "threading.excepthook": threading.excepthook = None
    if kind == "logging":
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}})
        logging.disable(logging.CRITICAL)
    if kind == "warnings": warnings.simplefilter("error")
    if kind == "gc": gc.disable(); gc.freeze()
    if kind == "sockets": socket.setdefaulttimeout(0.000001)
    if kind == "environment": os.environ.clear()
    if kind == "path": sys.path.clear(); sys.meta_path.clear()
    if kind == "modules": sys.modules.pop("json", None); sys.modules.pop("outlast.codec", None); sys.modules.pop("outlast", None)
    if kind == "random": random.seed(1)
    if kind == "switch interval": sys.setswitchinterval(5)
    if kind == "trace": sys.settrace(lambda *a: 1 / 0); threading.settrace(lambda *a: 1 / 0)
    if kind == "event loop": asyncio.set_event_loop(None); asyncio.set_event_loop_policy(None)
    if kind == "streams are gone": sys.stdout = sys.stderr = None
    if kind == "alarm": signal.setitimer(signal.ITIMER_REAL, 0.05)
    if kind == "descriptors": resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return kind

@step
def sync(kind: str): return harm(kind)

@step
async def on_loop(kind: str): return harm(kind)

@step(isolate=True)
def alone(kind: str):
    if kind == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        held = []
        while True: held.append(bytearray(64 << 20))
    if kind == "prints":
        for _ in range(int(os.environ.get("MEGABYTES", "8"))):
            sys.stdout.write("x" * 999_999 + "\n")
        return "printed"
    return harm(kind)

@step
def quiet(n: int) -> int: return n

@workflow(max_crashes=2)
def hostile(where: str, kind: str):
    return (alone if where == "alone" else sync)(kind)

@workflow(max_crashes=2)
async def hostile_later(kind: str):
    return await on_loop(kind)

@workflow
def innocent(n: int) -> int:
    return quiet(quiet(n)) + 1
"""
