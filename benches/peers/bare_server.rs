//! The floor of a tool call over stdio: rmcp and nothing else. Also a stand-in for any server whose answer is known.
//!
//! `bare_server [--answer FILE] [--delay-ms MS] [--at-once N] [TOOL=FILE...]`: the tool `answer` answers the tool result in its
//! FILE, or a text of two bytes; every tool named answers what its FILE holds at that time. At once, or after a delay
//! with so many calls at work. On one thread.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::io::stdio_pipes;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt};
use rustix::fs::{FileType, fstat};
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, stdin, stdout};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

struct Bare {
    /// What `answer` answers.
    answer: CallToolResult,
    /// The other tools, each with the file of its answer.
    files: HashMap<String, String>,
    delay: Option<Delay>,
}

/// What a slow server does before it answers.
struct Delay {
    time: Duration,
    at_once: Semaphore,
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut schema = JsonObject::new();
        schema.insert("type".into(), "object".into());
        let schema = Arc::new(schema);
        let tool = |name: &String| {
            Tool::new(
                name.clone(),
                "Answers the same to everything.",
                schema.clone(),
            )
        };
        Ok(ListToolsResult::with_all_items(
            self.files
                .keys()
                .chain([&ANSWER.to_owned()])
                .map(tool)
                .collect(),
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = match self.files.get(&*request.name) {
            Some(file) => read(file).map_err(|error| ErrorData::internal_error(error, None))?,
            None if request.name == ANSWER => self.answer.clone(),
            None => return Err(ErrorData::invalid_params("no such tool", None)),
        };
        if let Some(delay) = &self.delay {
            let _turn = delay.at_once.acquire().await;
            tokio::time::sleep(delay.time).await;
        }
        Ok(answer.into())
    }
}

/// The tool that answers from a constant.
const ANSWER: &str = "answer";

fn read(file: &str) -> Result<CallToolResult, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut answer = CallToolResult::success(vec![ContentBlock::text("{}")]);
    let mut files = HashMap::new();
    let (mut delay_ms, mut at_once) = (0, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--answer" => answer = read(&value()?)?,
            "--delay-ms" => delay_ms = value()?.parse()?,
            "--at-once" => at_once = value()?.parse()?,
            tool => {
                let (name, file) = tool.split_once('=').ok_or(format!("{tool} has no file"))?;
                files.insert(name.to_owned(), file.to_owned());
            }
        }
    }
    let delay = (delay_ms > 0).then(|| Delay {
        time: Duration::from_millis(delay_ms),
        at_once: Semaphore::new(at_once),
    });
    let server = Bare {
        answer,
        files,
        delay,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(server))
}

/// Serves on the transport that is fastest for what the standard streams are.
async fn serve(server: Bare) -> Result<(), Box<dyn Error>> {
    let running = if is_socket(stdin())? && is_socket(stdout())? {
        server.serve((socket(stdin())?, socket(stdout())?)).await?
    } else {
        server.serve(stdio_pipes()).await?
    };
    running.waiting().await?;
    Ok(())
}

fn is_socket(stream: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(stream)?.st_mode) == FileType::Socket)
}

fn socket(stream: impl AsFd) -> io::Result<UnixStream> {
    let own = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
    own.set_nonblocking(true)?;
    UnixStream::from_std(own)
}
