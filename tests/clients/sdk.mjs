// Drives the server with the official TypeScript SDK, started exactly as mcp.json says, and prints what it saw as one
// JSON object. The test that runs this judges it; nothing is asserted here.
//
//   node sdk.mjs MCP_JSON MODULES REPO...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [registration, modules, ...repos] = process.argv.slice(2);
// The modules are installed in a cache folder, not beside this file, where a plain import would look.
const require = createRequire(join(modules, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/client/${name}`)));
const { Client } = await load("index.js");
const { StdioClientTransport } = await load("stdio.js");

const { command, args } = JSON.parse(readFileSync(registration, "utf8")).mcpServers.mahavishnu;
const client = new Client({ name: "mahavishnu-sdk-test", version: "1" });
await client.connect(new StdioClientTransport({ command, args, stderr: "inherit" }));

const seen = { instructions: client.getInstructions() };
const call = (name, toolArguments, options) => client.callTool({ name, arguments: toolArguments }, undefined, options);

seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.pools = await call("list_pools", {});
seen.refused = await call("list_pools", { pools: ["no-such-pool"] });

// A run over every repository, watched by its progress.
seen.progress = [];
seen.run = await call(
    "execute_workflow_parallel",
    { repos, command: ["git", "rev-parse", "HEAD"], wait_s: 40 },
    { onprogress: (note) => seen.progress.push(note), timeout: 120_000 },
);

// The client gives up waiting for a long run: the run goes on, and stops only when it is told to.
const giving_up = new AbortController();
const waiting = call(
    "execute_workflow_parallel",
    { repos: [repos[0]], command: ["sleep", "600"], wait_s: 40 },
    { signal: giving_up.signal, onprogress: () => giving_up.abort(), timeout: 120_000 },
);
seen.gave_up = await waiting.then(() => "no", () => "yes");
seen.after_giving_up = await call("get_workflow", { status: ["running"] });
const { workflow_id } = seen.after_giving_up.structuredContent.workflows[0];
await call("cancel_workflow", { workflow_id, grace_s: 1 });
seen.cancelled = await call("get_workflow", { workflow_id, wait_for: "done", wait_s: 40 });

await client.close();
process.stdout.write(JSON.stringify(seen));
