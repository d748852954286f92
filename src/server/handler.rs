//! rmcp's view of the server: one handler for every transport and both protocol eras.

use super::cancels::Cancels;
use super::instructions::INSTRUCTIONS;
use super::tools::ToolSpec;
use super::{answer, hosts, progress, resources, tools};
use crate::api::{Caller, Interrupt, Tools};
use crate::error::{ErrorKind, Problem, nearest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult,
    CancelledNotificationParam, Implementation, JsonObject, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How long a host of the new era may keep the lists of tools and templates: they change only with the program.
const FIXED_FRESH_FOR: Duration = Duration::from_secs(3_600);

/// The most notices that wait to be told.
const MAX_WAITING_NOTICES: usize = 50;

/// How a connection ends, told by its transport.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Fires when the client sends nothing more: notifications have no way out any more, answers still have.
    pub mute: CancellationToken,
    /// Fires when calls in flight should answer at once with what they have.
    pub closing: CancellationToken,
}

/// One connection's handler.
pub struct McpServer {
    tools: Arc<dyn Tools>,
    runtime: Handle,
    connection: Connection,
    cancels: Cancels,
    // A std mutex: it is held to push or drain, never across an await.
    notices: Mutex<Vec<String>>,
}

impl McpServer {
    /// Returns the handler of `connection`, which calls `tools`; what these spawn, and their timers, belong to `runtime`.
    pub fn new(tools: Arc<dyn Tools>, runtime: Handle, connection: Connection) -> Self {
        Self {
            tools,
            runtime,
            connection,
            cancels: Cancels::default(),
            notices: Mutex::default(),
        }
    }

    /// Runs one call to its answer.
    ///
    /// Most answers are ready at the first look and need nothing else; progress and the relay of an interrupt are set
    /// up for those that are not.
    async fn run(
        &self,
        spec: &'static ToolSpec,
        arguments: JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> CallToolResult {
        let caller = caller(context);
        let work = spec.call(self.tools.as_ref(), arguments, &caller);
        let work = within(&self.runtime, work);
        let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
        let result = match futures_util::poll!(work.as_mut()) {
            Poll::Ready(result) => result,
            Poll::Pending => self.attend(work, &caller, context).await,
        };
        let lost = matches!(caller.interrupt_now(), Some(Interrupt::Cancelled(_)));
        self.encode(spec, result, lost)
    }

    /// Waits for work under way, with progress beside it and its interrupt relayed.
    async fn attend<R>(
        &self,
        work: Pin<&mut impl Future<Output = R>>,
        caller: &Caller,
        context: &RequestContext<RoleServer>,
    ) -> R {
        let registered = self.cancels.register(context.id.clone());
        let done = CancellationToken::new();
        let work = async {
            let result = work.await;
            done.cancel();
            result
        };
        let relay = async {
            tokio::select! {
                () = done.cancelled() => {}
                why = registered.interrupted(&context.ct, &self.connection.closing) => caller.interrupt(why),
            }
        };
        let tell = async {
            if let Some(token) = context.meta.get_progress_token() {
                progress::relay(&context.peer, token, caller, &done, &self.connection.mute).await;
            }
        };
        let (result, (), ()) = tokio::join!(work, relay, tell);
        result
    }

    fn encode(
        &self,
        spec: &ToolSpec,
        result: std::thread::Result<Result<String, Problem>>,
        lost: bool,
    ) -> CallToolResult {
        let result = result.unwrap_or_else(|panic| Err(panicked(spec.name, panic.as_ref())));
        if lost {
            self.note_lost(spec, &result);
        }
        // A lost answer must not take notices with it.
        let notices = if lost { Vec::new() } else { self.notices() };
        match result {
            Ok(result) => answer::success(spec.name, result, notices),
            Err(problem) => answer::failure(spec.name, &problem, notices),
        }
    }

    /// Keeps what the host will not see of an answer it no longer waits for.
    fn note_lost(&self, spec: &ToolSpec, result: &Result<String, Problem>) {
        let Ok(result) = result else { return };
        if spec.effect.is_read_only() {
            return;
        }
        let result: Value = serde_json::from_str(result).unwrap_or_default();
        let notice = match result.get("workflow_id").and_then(Value::as_str) {
            Some(id) => format!(
                "the answer of an earlier {} was not delivered: it is workflow {id}; see get_workflow",
                spec.name
            ),
            None => format!(
                "the answer of an earlier {} was not delivered; it was done",
                spec.name
            ),
        };
        let mut notices = self.lock();
        if notices.len() == MAX_WAITING_NOTICES {
            notices.remove(0);
        }
        notices.push(notice);
    }

    fn notices(&self) -> Vec<String> {
        let mut waiting = self.lock();
        waiting.extend(self.tools.take_notices());
        let room = answer::notices_room().min(waiting.len());
        waiting.drain(..room).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls `work` where it is awaited, with all that it spawns, and its timers, on `runtime`: the connection's own thread
/// answers without waking another, and what a call sets off runs beside it.
fn within<'a, T: 'a>(
    runtime: &'a Handle,
    mut work: BoxFuture<'a, T>,
) -> impl Future<Output = T> + Send + 'a {
    std::future::poll_fn(move |cx| {
        let _entered = runtime.enter();
        work.as_mut().poll(cx)
    })
}

/// Returns who calls.
fn caller(context: &RequestContext<RoleServer>) -> Caller {
    let name = context.client_info().map(|client| client.name);
    let cap = hosts::wait_cap(name.as_deref());
    Caller::new(name, cap)
}

/// Awaits what only looks, until the request is taken back; a panic in it is an answer too.
async fn looking<T>(
    context: &RequestContext<RoleServer>,
    look: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    let internal = |message: String| Err(ErrorData::internal_error(message, None));
    tokio::select! {
        biased;
        seen = AssertUnwindSafe(look).catch_unwind() => match seen {
            Ok(seen) => seen,
            Err(panic) => internal(panicked("a resource", panic.as_ref()).message),
        },
        () = context.ct.cancelled() => internal("the request was taken back".to_owned()),
    }
}

/// A defect is told as one, with what the panic said, and goes to the log; the caller never waits for ever.
fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Problem {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(what, said, "a call panicked");
    Problem::new(ErrorKind::Internal, format!("{what} has a defect: {said}"))
        .with_hint("please report it; what ran before goes on, get_workflow and check_health tell how it stands")
}

fn unknown_tool(name: &str) -> ErrorData {
    let shown: String = name.chars().take(64).collect();
    let names = tools::all().iter().map(|tool| tool.name);
    let message = match nearest(name, names) {
        Some(near) => format!("no tool is called `{shown}`; did you mean `{near}`?"),
        None => format!("no tool is called `{shown}`"),
    };
    ErrorData::invalid_params(message, None)
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("mahavishnu", env!("CARGO_PKG_VERSION"))
            .with_title("Mahavishnu")
            .with_description(env!("CARGO_PKG_DESCRIPTION"));
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = tools::all().iter().map(ToolSpec::tool).collect();
        let mut list = ListToolsResult::with_all_items(tools);
        if is_new_era(&context) {
            list.ttl_ms = u64::try_from(FIXED_FRESH_FOR.as_millis()).ok();
            list.cache_scope = Some(CacheScope::Public);
        }
        Ok(list)
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut list = resources::templates();
        if is_new_era(&context) {
            list.ttl_ms = u64::try_from(FIXED_FRESH_FOR.as_millis()).ok();
            list.cache_scope = Some(CacheScope::Public);
        }
        Ok(list)
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let caller = caller(&context);
        let list = resources::list(self.tools.as_ref(), cursor, &caller);
        looking(&context, within(&self.runtime, Box::pin(list))).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller(&context);
        let read = resources::read(self.tools.as_ref(), &request.uri, &caller);
        let read = within(&self.runtime, Box::pin(read));
        looking(&context, read).await.map(Into::into)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(spec) = tools::find(&request.name) else {
            return Err(unknown_tool(&request.name));
        };
        let arguments = request.arguments.unwrap_or_default();
        Ok(self.run(spec, arguments, &context).await.into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::find(name).map(ToolSpec::tool)
    }

    async fn on_cancelled(
        &self,
        notification: CancelledNotificationParam,
        _: NotificationContext<RoleServer>,
    ) {
        if let Some(id) = notification.request_id {
            self.cancels.cancelled(id, notification.reason);
        }
    }
}

fn is_new_era(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}
