"""The same answer from a FastMCP server: `fastmcp_server.py [ANSWER_FILE]`, a tool called `answer`."""

import json
import sys

from fastmcp import FastMCP
from fastmcp.tools import ToolResult
from mcp.types import TextContent

structured = {}
if len(sys.argv) > 1:
    with open(sys.argv[1], encoding="utf-8") as file:
        structured = json.load(file)["structuredContent"]
text = json.dumps(structured, separators=(",", ":"), ensure_ascii=False)

server = FastMCP("fastmcp-peer")


@server.tool
def answer() -> ToolResult:
    return ToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


server.run(transport="stdio", show_banner=False)
