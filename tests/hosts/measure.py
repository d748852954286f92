#!/usr/bin/env python3
"""Measures what agent hosts tell the server when a person or a clock ends a call: the table of
src/orchestrator/interrupt.rs.

Opt-in, for new versions of the hosts; nothing runs it by itself. Each case starts a real host with a home of its own,
a stub of its model on loopback that asks for one `sleep` through the server, and this same file as a recorder between
the two. Then it interrupts the call, or lets it time out, and prints one JSON object: the notification that the server
got, how the run stood 4 s later and in the end, and how the host ended the server.

    npm install --prefix DIR @anthropic-ai/claude-code @openai/codex @google/gemini-cli @modelcontextprotocol/inspector
    tests/hosts/measure.py --hosts DIR --server target/debug/mahavishnu [--only claude] [--case esc] [--keep]

Needs Python 3.9, tmux, git, and on the PATH the Node that the hosts want; npm has to run Claude Code's install script.
A case takes up to a minute. Not measured here: the Inspector's web page, and the time-out of its command lines, which
is longer than the server ever lets them wait.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER = "mahavishnu"
TOOL = "route_least_loaded"
WORK_S = 20  # How long the work takes: longer than any time-out here, shorter than a person's patience.
TIMEOUT_S = 6  # The host's own time-out, in the cases with one.
INTERRUPT_AFTER_S = 7  # Past the first progress message.
SETTLE_S = 2  # A host's screen takes as long to be ready for keys.
HANG_S = 60

# Each case: is it headless, what ends the call (keys, a signal, or nothing: the time-out), and on_interrupt.
CASES = {
    "esc": (False, ["Escape"], "cancel"),
    "esc-keep": (False, ["Escape"], "keep"),
    "ctrl-c": (False, ["C-c"], "cancel"),
    "sigint": (True, signal.SIGINT, "cancel"),
    "headless-ctrl-c": (True, ["C-c"], "cancel"),
    "timeout": (True, None, "cancel"),
    "timeout-interactive": (False, None, "cancel"),
}


# The recorder: stands between host and server, and writes down what passes.


def record(log_path, command):
    """Runs `command`, passes its stdin, stdout and signals on, and appends what it sees to `log_path`."""
    log = open(log_path, "a", buffering=1)
    lock = threading.Lock()

    def note(kind, value):
        with lock:
            log.write(json.dumps({"at": time.time(), "kind": kind, "value": value}) + "\n")

    note("start", command)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def forward(number, _):
        note("signal", signal.Signals(number).name)
        child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)

    def pump(source, sink, kind):
        for line in iter(source.readline, b""):
            note(kind, line.decode(errors="replace").rstrip())
            try:
                sink.write(line)
                sink.flush()
            except BrokenPipeError:
                note("broken", kind)
                break
        note("eof", kind)

    def feed():
        pump(sys.stdin.buffer, child.stdin, "host")
        child.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    out = threading.Thread(target=pump, args=(child.stdout, sys.stdout.buffer, "server"), daemon=True)
    out.start()
    status = child.wait()
    out.join(2)
    note("exit", status)
    os._exit(0)  # The feeding thread may still sit in a read that nothing ends.


class Record:
    """What the recorder wrote."""

    def __init__(self, path):
        lines = path.read_text().split("\n") if path.exists() else [""]
        self.events = [json.loads(line) for line in lines[:-1]]  # The last one may be half written.

    def of(self, kind):
        return [event["value"] for event in self.events if event["kind"] == kind]

    def messages(self, side):
        """Returns what `side` sent, each with its time."""
        sent = [(event["at"], event["value"]) for event in self.events if event["kind"] == side]
        return [(at, json.loads(text)) for at, text in sent if text.startswith("{")]

    def call(self):
        """Returns the time and the message of the call, where it was made."""
        calls = ((at, m) for at, m in self.messages("host") if m.get("method") == "tools/call")
        return next(((at, m) for at, m in calls if m["params"]["name"] == TOOL), None)

    def has_listed(self):
        return any("tools" in (m.get("result") or {}) for _, m in self.messages("server"))

    def client(self, call):
        """Returns the host's clientInfo and the protocol of its call, from either era."""
        if info := call["params"].get("_meta", {}).get("io.modelcontextprotocol/clientInfo"):
            return info, call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"]
        greeting = next(m for _, m in self.messages("host") if m.get("method") == "initialize")
        return greeting["params"]["clientInfo"], greeting["params"]["protocolVersion"]

    def report(self):
        began, call = self.call()
        info, protocol = self.client(call)
        cancels = [(at, m["params"]) for at, m in self.messages("host") if m.get("method") == "notifications/cancelled"]
        return {
            "client": f"{info['name']} {info['version']}",
            "protocol": protocol,
            "cancelled": [
                {"reason": params.get("reason"), "after_s": round(at - began, 1)}
                for at, params in cancels
                if params.get("requestId") == call["id"]
            ],
            "progress_sent": sum(m.get("method") == "notifications/progress" for _, m in self.messages("server")),
            "server_got": self.of("signal") + ["end of stdin"] * ("host" in self.of("eof")),
            "server_exit": self.of("exit"),
        }


# The stub of the models: asks for one tool call, then holds its answer until the case has been looked at.


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.arguments = {}
        self.settled = threading.Event()
        self.results = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class StubHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.send_json({"data": [], "models": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.split("?")[0]
        if path.endswith("/v1/messages"):
            self.send_events(*claude_answer(self.turn(body, claude_result)))
        elif path.endswith("/v1/responses"):
            self.send_events(*codex_answer(self.turn(body, codex_result)))
        elif "streamGenerateContent" in path:
            self.send_events(*gemini_answer(self.turn(body, gemini_result)))
        elif path.endswith("count_tokens"):
            self.send_json({"input_tokens": 1, "totalTokens": 1})
        else:
            self.send_json({"candidates": [{"content": {"role": "model", "parts": [{"text": "{}"}]}}]})

    def turn(self, body, result_of):
        """Returns the call's arguments, or None where the host should get the last text."""
        if TOOL not in json.dumps(body.get("tools") or []):
            return None  # A side question, such as for a title.
        if (result := result_of(body)) is None:
            return self.server.arguments
        self.server.results.append(result)
        self.server.settled.wait(HANG_S)
        return None

    def send_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_events(self, *events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for event in events:
            kind = f"event: {event['type']}\n" if "type" in event else ""
            self.wfile.write(f"{kind}data: {json.dumps(event)}\n\n".encode())


def claude_result(body):
    blocks = [b for m in body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    results = [b for b in blocks if b.get("type") == "tool_result"]
    return json.dumps(results[-1].get("content")) if results else None


def claude_answer(arguments):
    if arguments is None:
        start, stop = {"type": "text", "text": ""}, "end_turn"
        delta = {"type": "text_delta", "text": "All done."}
    else:
        start = {"type": "tool_use", "id": "toolu_01stub", "name": f"mcp__{SERVER}__{TOOL}", "input": {}}
        delta, stop = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}, "tool_use"
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_stub", "type": "message", "role": "assistant", "model": "stub", "content": []}
    return (
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    )


def codex_result(body):
    results = [item for item in body["input"] if item.get("type") == "function_call_output"]
    return json.dumps(results[-1].get("output")) if results else None


def codex_answer(arguments):
    if arguments is None:
        content = [{"type": "output_text", "text": "All done.", "annotations": []}]
        item = {"type": "message", "id": "msg_stub", "role": "assistant", "content": content}
    else:
        call = {"namespace": f"mcp__{SERVER}", "name": TOOL, "arguments": json.dumps(arguments)}
        item = {"type": "function_call", "id": "fc_stub", "call_id": "call_stub"} | call
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    return (
        {"type": "response.created", "response": {"id": "resp_stub"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "resp_stub", "output": [item], "usage": usage}},
    )


def gemini_result(body):
    parts = [part for content in body["contents"] for part in content.get("parts", [])]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    return json.dumps(results[-1].get("response")) if results else None


def gemini_answer(arguments):
    if arguments is None:
        part = {"text": "All done."}
    else:
        part = {"functionCall": {"name": f"mcp_{SERVER}_{TOOL}", "args": arguments}}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    return ({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "stub"},)


# The hosts: how each is set up in a home of its own, and started. `timeout` is its own limit on a call, in seconds.


class Host:
    cases = list(CASES)
    confirm = []  # The keys that a Ctrl-C in the interactive program needs beside it.

    def __init__(self, bin_dir, home, work, server, url):
        self.bin, self.home, self.work, self.server, self.url = bin_dir, home, work, server, url

    def write(self, name, value):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)


class Claude(Host):
    def prepare(self, timeout):
        key = "sk-ant-stub-0000000000000000000000"
        trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        self.write(".claude.json", {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
            "projects": {str(self.work): trusted},
        })
        entry = {"command": self.server[0], "args": self.server[1:]}
        self.mcp = self.write("mcp.json", {"mcpServers": {SERVER: entry}})
        env = {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            "DISABLE_AUTOUPDATER": "1",
            "ENABLE_TOOL_SEARCH": "false",
            "MCP_CONNECTION_NONBLOCKING": "0",
        }
        return env | ({"MCP_TOOL_TIMEOUT": str(timeout * 1000)} if timeout else {})

    def command(self, headless):
        flags = ["--mcp-config", self.mcp, "--strict-mcp-config", "--model", "sonnet"]
        flags += ["--permission-mode", "default", "--allowedTools", f"mcp__{SERVER}"]
        return [self.bin / "claude", *(["--bare", "-p", "go"] if headless else []), *flags]


class Codex(Host):
    confirm = ["Enter"]  # Ctrl-C offers a menu; its first row is "Cancel task".

    def prepare(self, timeout):
        limit = f"tool_timeout_sec = {timeout}" if timeout else ""
        self.write(".codex/config.toml", f"""
model = "gpt-5"
model_provider = "stub"
check_for_update_on_startup = false
[model_providers.stub]
name = "stub"
base_url = "{self.url}/v1"
wire_api = "responses"
env_key = "STUB_KEY"
request_max_retries = 0
[projects.{json.dumps(str(self.work))}]
trust_level = "trusted"
[mcp_servers.{SERVER}]
command = {json.dumps(self.server[0])}
args = {json.dumps(self.server[1:])}
default_tools_approval_mode = "approve"
{limit}
""")
        return {"CODEX_HOME": str(self.home / ".codex"), "STUB_KEY": "x"}

    def command(self, headless):
        if headless:
            return [self.bin / "codex", "exec", "--skip-git-repo-check", "-s", "danger-full-access", "go"]
        return [self.bin / "codex", "-s", "danger-full-access", "-a", "never"]


class Gemini(Host):
    def prepare(self, timeout):
        entry = {"command": self.server[0], "args": self.server[1:], "trust": True}
        entry |= {"timeout": timeout * 1000} if timeout else {}
        self.write(".gemini/settings.json", {
            "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
            "privacy": {"usageStatisticsEnabled": False},
            "mcpServers": {SERVER: entry},
        })
        return {"GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": self.url, "GEMINI_CLI_TRUST_WORKSPACE": "true"}

    def command(self, headless):
        return [self.bin / "gemini", "-m", "gemini-2.5-flash", *(["-p", "go"] if headless else [])]


class Inspector(Host):
    """The Inspector's command line; it has no model, so it is given the call itself."""

    cases = ["sigint", "headless-ctrl-c"]

    def prepare(self, _):
        entry = {"command": self.server[0], "args": self.server[1:]}
        self.config = self.write("mcp.json", {"mcpServers": {SERVER: entry}})
        return {"MCP_INSPECTOR_SECRET_STORE": "memory"}

    def call(self):
        return ["--tool-name", TOOL, "--tool-args-json", json.dumps(self.arguments)]

    def command(self, _):
        start = [self.bin / "mcp-inspector", "--cli", "--config", self.config, "--server", SERVER]
        return [*start, "--method", "tools/call", *self.call()]


class Mcpdo(Inspector):
    """The Inspector's other command line: a daemon holds the connection, and Ctrl-C stops the call alone."""

    def command(self, _):
        mcpdo = [self.bin / "mcpdo", "--config", self.config]
        connect, call = [*mcpdo, "connect", SERVER], [*mcpdo, "tools/call", *self.call()]
        return ["sh", "-c", f"{join(connect)} && exec {join(call)}"]


def join(words):
    return shlex.join(map(str, words))


HOSTS = {
    "claude": Claude,
    "codex": Codex,
    "gemini": Gemini,
    "inspector": Inspector,
    "mcpdo": Mcpdo,
}

class Pane:
    """A terminal of its own tmux server, with one program in it."""

    def __init__(self, socket):
        self.socket = socket

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.socket, *args], capture_output=True, text=True, check=False)

    def start(self, command, env, cwd):
        words = ["exec", "env", "-i", *(f"{k}={v}" for k, v in env.items()), *command]
        line = join(words)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "180", "-y", "50", "-c", str(cwd), line)
        self.tmux("set-option", "-g", "remain-on-exit", "on")

    def screen(self):
        """Returns what it shows, without frames and empty lines."""
        lines = re.sub("[\u2500-\u259f]+", "", self.tmux("capture-pane", "-p").stdout).splitlines()
        return "\n".join(" ".join(line.split()) for line in lines if line.strip())

    def pid(self):
        return int(self.tmux("display-message", "-p", "#{pane_pid}").stdout.strip() or 0)

    def alive(self):
        return self.tmux("display-message", "-p", "#{pane_dead}").stdout.strip() == "0"

    def keys(self, *keys):
        self.tmux("send-keys", *keys)


def wait_for(what, limit_s):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.25)
    return None


def end_all_that_name(folder):
    """Ends what a host left behind, such as Codex its app server: whatever has this case's folder in its arguments."""
    listed = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        pid, args = line.split(maxsplit=1)
        if folder in args and int(pid) != os.getpid():
            try:
                os.kill(int(pid), signal.SIGTERM)
            except ProcessLookupError:
                pass


class Case:
    def __init__(self, options, host, name):
        self.name, self.options = name, options
        self.headless, self.ender, on_interrupt = CASES[name]
        self.dir = Path(tempfile.mkdtemp(prefix=f"measure-{host}-{name}-"))
        self.work, self.state, self.log = self.dir / "work", self.dir / "state", self.dir / "record"
        repo = self.work / "alpha"
        git = ["git", "-c", "user.name=m", "-c", "user.email=m@example.invalid", "-C", str(repo)]
        repo.mkdir(parents=True)
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "base"], check=True)
        self.stub = Stub()
        self.stub.arguments = {
            "repo": str(repo),
            "command": ["sleep", str(WORK_S)],
            "wait_s": 2 * WORK_S,
            "on_interrupt": on_interrupt,
        }
        self.server = [str(options.server), "--state-dir", str(self.state), "--root", str(self.work)]
        recorder = [sys.executable, str(Path(__file__).resolve()), "record", str(self.log), *self.server]
        bin_dir = options.hosts / "node_modules/.bin"
        self.host = HOSTS[host](bin_dir, self.dir / "home", self.work, recorder, self.stub.url)
        self.host.arguments = self.stub.arguments
        self.pane = Pane(str(self.dir / "tmux"))

    def run_state(self):
        """Returns the status of the only run, asked of the store by another server."""
        out = subprocess.run([*self.server, "call", "get_workflow"], capture_output=True, text=True, check=False).stdout
        try:
            return json.loads(out)["workflows"][0]["status"]
        except (ValueError, KeyError, IndexError):
            return f"unknown: {out[:200]}"

    def measure(self):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.dir / "home"), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        env |= self.host.prepare(TIMEOUT_S if self.ender is None else None)
        self.pane.start(self.host.command(self.headless), env, self.work)
        if not self.headless:
            self.ask()
        if not wait_for(lambda: Record(self.log).call(), HANG_S):
            return {"error": "the host did not make the call", "screen": self.pane.screen()}
        time.sleep(INTERRUPT_AFTER_S)
        seen = {"progress_shown": "0 of 1 done" in self.pane.screen()}
        self.end_call()
        time.sleep(4)
        seen["host_alive"] = self.pane.alive()
        seen["run_4s_later"] = self.run_state()
        wait_for(lambda: self.run_state() not in ("running", "planned"), 2 * WORK_S)
        seen["run_in_the_end"] = self.run_state()
        self.stub.settled.set()
        self.end_host()
        seen["told_the_model"] = [result[:200] for result in self.stub.results[:1]]
        return seen | Record(self.log).report()

    def ask(self):
        """Types the prompt, once the host has the tools."""
        wait_for(lambda: Record(self.log).has_listed(), HANG_S)
        for key in ("go", "Enter"):
            time.sleep(SETTLE_S)
            self.pane.keys(key)

    def end_call(self):
        if isinstance(self.ender, list):
            self.pane.keys(*self.ender)
            if self.name == "ctrl-c" and self.host.confirm:
                time.sleep(SETTLE_S)
                self.pane.keys(*self.host.confirm)
        elif self.ender is not None:
            os.kill(self.pane.pid(), self.ender)

    def end_host(self):
        time.sleep(SETTLE_S)
        for _ in range(4):
            if self.pane.alive():
                self.pane.keys("C-c")
                time.sleep(0.7)
        wait_for(lambda: Record(self.log).of("exit"), 8)

    def close(self):
        self.pane.tmux("kill-server")
        self.stub.shutdown()
        end_all_that_name(str(self.dir))
        if self.options.keep:
            print(f"kept {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=lambda p: Path(p).resolve(), required=True, help="where npm installed them")
    parser.add_argument("--server", type=lambda p: Path(p).resolve(), required=True, help="the mahavishnu to start")
    parser.add_argument("--only", choices=HOSTS, action="append", help="these hosts only")
    parser.add_argument("--case", choices=CASES, action="append", help="these cases only")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folders")
    options = parser.parse_args()
    for host in options.only or HOSTS:
        for name in (name for name in HOSTS[host].cases if name in (options.case or CASES)):
            case = Case(options, host, name)
            try:
                print(json.dumps({"host": host, "case": name} | case.measure(), indent=1), flush=True)
            finally:
                case.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(sys.argv[2], sys.argv[3:])
    else:
        main()
