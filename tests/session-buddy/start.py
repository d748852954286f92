#!/usr/bin/env python3
"""Start a real Session-Buddy 0.23.0 MCP server in the foreground.

    start.py --profile default|minimal|standard|full --port N --data-dir DIR
             [--host 127.0.0.1] [--transport http|stdio] [--venv DIR]
             [--prewarm] [--until-eof] [--online] [--embeddings-url URL]

The endpoint is http://HOST:PORT/mcp ; readiness: GET http://HOST:PORT/healthz -> 200.
Everything the server writes goes below DIR (it becomes HOME and the working
directory), so one DIR per test is full isolation. Two servers need two DIRs.

Meant for integration tests: spawn it, poll /healthz, SIGTERM or SIGKILL the pid
(it is the server process itself, there is no child). With --until-eof it also ends
when its stdin closes, so that no server outlives the test process.
Virtual environment: --venv, else $SB_VENV (what install.sh prints).
"""

import argparse
import os
import sys
import threading
from pathlib import Path

DEAD = "http://127.0.0.1:9"  # discard port: refuses at once


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--profile", default="default",
                   choices=["default", "minimal", "standard", "full"])
    p.add_argument("--port", type=int, default=8678)
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--data-dir", required=True)
    p.add_argument("--transport", default="http", choices=["http", "stdio"])
    p.add_argument("--venv")
    p.add_argument("--online", action="store_true",
                   help="allow DuckDB extension downloads (slow without network)")
    p.add_argument("--prewarm", action="store_true",
                   help="before serving, save the write-ahead log of a killed server and "
                        "create and checkpoint the database; without this, killing a "
                        "server loses every item since its last checkpoint")
    p.add_argument("--until-eof", action="store_true",
                   help="end when stdin closes (http transport only)")
    p.add_argument("--embeddings-url", default=DEAD,
                   help="base of an OpenAI-style embeddings server; default: none")
    return p.parse_args()


def in_venv(venv):
    return Path(sys.prefix).resolve() == Path(venv).resolve()


def main():
    args = arguments()
    venv = args.venv or os.environ.get("SB_VENV")
    if not venv:
        sys.exit("start.py: give --venv or set SB_VENV to what install.sh printed")
    venv = os.path.abspath(venv)
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        sys.exit(f"start.py: no virtual environment at {venv}; run install.sh first "
                 f"or set SB_VENV")
    data = Path(args.data_dir).resolve()
    if not in_venv(venv):
        os.environ["SB_VENV"] = venv
        os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])

    if args.until_eof and args.transport == "http":
        def end_at_eof():
            sys.stdin.buffer.read()
            os._exit(0)

        threading.Thread(target=end_at_eof, daemon=True).start()

    # Isolation. HOME decides every path the server uses; the working directory
    # must not be a git repository, or the server opens and closes a "session"
    # for that repository by itself.
    data.mkdir(parents=True, exist_ok=True)
    env = os.environ
    for name in list(env):
        if name.startswith(("SESSION_BUDDY_", "SESSION_MGMT_")) and name not in (
            "SESSION_BUDDY_SECRET",
        ):
            del env[name]
    env["HOME"] = str(data)
    env["PWD"] = str(data)
    os.chdir(data)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        env.pop(name, None)
    env.setdefault("FASTMCP_CHECK_FOR_UPDATES", "off")
    env.setdefault("FASTMCP_SHOW_SERVER_BANNER", "false")
    env["MAHAVISHNU__LLAMA_SERVER_URL"] = args.embeddings_url.rstrip("/")
    env["MAHAVISHNU__OLLAMA_URL"] = DEAD
    env["SESSION_BUDDY_DHARA_URL"] = DEAD

    if not args.online:
        # Without this the first use of the database waits for several seconds
        # for a download of optional DuckDB extensions that then fails.
        import duckdb

        real_connect = duckdb.connect

        def connect(database=":memory:", read_only=False, config=None, **kw):
            config = dict(config or {})
            config.setdefault("custom_extension_repository", str(data / "no-extensions"))
            return real_connect(database, read_only=read_only, config=config, **kw)

        duckdb.connect = connect

    # In stdio mode stdout belongs to the protocol alone; importing the package
    # prints to it, so send that to stderr until the transport takes over.
    saved = None
    if args.transport == "stdio":
        saved = os.dup(1)
        os.dup2(2, 1)

    if args.profile == "default":
        from session_buddy.server_optimized import mcp
    else:
        env["SESSION_BUDDY_TOOL_PROFILE"] = args.profile
        from session_buddy.mcp.server import mcp

    if args.prewarm:
        import asyncio
        import duckdb

        from session_buddy.adapters.reflection_adapter import ReflectionDatabaseAdapter
        from session_buddy.reflection.database import ReflectionDatabase

        # A log left by a killed server: replaying it while DuckDB opens the file
        # fails, and the server then deletes it. Attaching the file replays it.
        base = data / ".claude" / "data" / "reflection.duckdb"
        if base.exists() and Path(f"{base}.wal").exists():
            with duckdb.connect() as rescue:
                rescue.execute("LOAD core_functions")
                quoted = str(base).replace("'", "''")
                rescue.execute(f"ATTACH '{quoted}' AS rescued")
                rescue.execute("CHECKPOINT rescued")
                rescue.execute("DETACH rescued")

        async def prewarm():
            for kind in (ReflectionDatabaseAdapter, ReflectionDatabase):
                async with kind():
                    pass

        asyncio.run(prewarm())

    if args.transport == "stdio":
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
        mcp.run(transport="stdio", show_banner=False)
    else:
        mcp.run(transport="streamable-http", host=args.host, port=args.port,
                path="/mcp", show_banner=False)


if __name__ == "__main__":
    main()
