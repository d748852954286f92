//! rmcp's view of the server: one handler for every transport and both protocol eras.

use super::cancels::CancelReasons;
use super::instructions::INSTRUCTIONS;
use super::tools::ToolSpec;
use super::{answer, decode, hosts, progress, resources, tools};
use crate::api::{Caller, Interrupt, Tools};
use crate::error::{ErrorKind, Problem, nearest};
use crate::panic::{self, Panicked};
use parking_lot::Mutex;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult,
    CancelledNotificationParam, CustomRequest, CustomResult, ErrorCode, Implementation, JsonObject,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The method that calls a tool.
const CALL_TOOL: &str = "tools/call";

/// How long a host of the new era may keep the lists of tools and templates: they change only with the program.
const LISTS_FRESH_FOR: Duration = Duration::from_secs(3_600);

/// The most notices that wait for an answer to carry them.
const MAX_WAITING_NOTICES: usize = 50;

/// How a connection ends; fired by its transport.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    /// Fires when the client sends nothing more: answers are still delivered, notifications are not.
    pub(super) input_ended: CancellationToken,
    /// Fires when calls in flight should answer at once with what they have.
    pub(super) closing: CancellationToken,
}

/// One connection's handler.
pub(super) struct McpServer {
    tools: Arc<dyn Tools>,
    connection: Connection,
    cancel_reasons: CancelReasons,
    // Held to push or drain, never across an await.
    notices: Mutex<Vec<String>>,
}

impl McpServer {
    /// Returns the handler of `connection`, which calls `tools`.
    pub(super) fn new(tools: Arc<dyn Tools>, connection: Connection) -> Self {
        Self {
            tools,
            connection,
            cancel_reasons: CancelReasons::default(),
            notices: Mutex::default(),
        }
    }

    /// Calls the tool `name`.
    ///
    /// # Errors
    ///
    /// A protocol error where there is no such tool. Refused arguments and failed work are answers.
    async fn call(
        &self,
        name: &str,
        arguments: JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let spec = tools::find(name).ok_or_else(|| unknown_tool(name))?;
        let caller = caller(context);
        let work = panic::catch(spec.call(self.tools.as_ref(), arguments, &caller));
        let result = self.attend(work, &caller, context).await;
        let result = result.unwrap_or_else(|panic| Err(defect(spec.name, &panic)));
        let lost = matches!(caller.interrupt_now(), Some(Interrupt::Cancelled(_)));
        if lost {
            self.note_lost(spec, &result);
        }
        // A lost answer must not take notices with it.
        let notices = if lost { Vec::new() } else { self.notices() };
        Ok(match result {
            Ok(result) => answer::success(spec.name, result, notices),
            Err(problem) => answer::failure(spec.name, &problem, notices),
        })
    }

    /// Waits for the work of a call, relays its progress, and interrupts it when the call is taken back.
    async fn attend<R>(
        &self,
        work: impl Future<Output = R>,
        caller: &Caller,
        context: &RequestContext<RoleServer>,
    ) -> R {
        let done = CancellationToken::new();
        let work = async {
            let result = work.await;
            done.cancel();
            result
        };
        let interrupt = async { caller.interrupt(self.interrupted(context).await) };
        let progress = async {
            if let Some(token) = context.meta.get_progress_token() {
                let input_ended = &self.connection.input_ended;
                progress::relay(&context.peer, token, caller, &done, input_ended).await;
            }
        };
        let (result, _, ()) = tokio::join!(work, done.run_until_cancelled(interrupt), progress);
        result
    }

    /// Waits until the call is taken back or the connection closes.
    async fn interrupted(&self, context: &RequestContext<RoleServer>) -> Interrupt {
        let cancelled = async {
            context.ct.cancelled().await;
            self.cancel_reasons.of(&context.id).await
        };
        // A closing server cancels every request: then no reason comes.
        tokio::select! {
            biased;
            () = self.connection.closing.cancelled() => Interrupt::Closing,
            reason = cancelled => Interrupt::Cancelled(reason),
        }
    }

    /// Keeps a notice of an answer that the host no longer waits for.
    fn note_lost(&self, spec: &ToolSpec, result: &Result<Value, Problem>) {
        let Ok(result) = result else { return };
        if spec.effect.is_read_only() {
            return;
        }
        let outcome = match result.get("workflow_id").and_then(Value::as_str) {
            Some(id) => format!("it is workflow {id}; see get_workflow"),
            None => "it was done".to_owned(),
        };
        let notice = format!(
            "the answer of an earlier {} was not delivered: {outcome}",
            spec.name
        );
        let mut notices = self.notices.lock();
        if notices.len() == MAX_WAITING_NOTICES {
            notices.remove(0);
        }
        notices.push(notice);
    }

    fn notices(&self) -> Vec<String> {
        let mut waiting = self.notices.lock();
        waiting.extend(self.tools.take_notices());
        let room = answer::MAX_NOTICES.min(waiting.len());
        waiting.drain(..room).collect()
    }
}

/// Returns who calls.
fn caller(context: &RequestContext<RoleServer>) -> Caller {
    let name = context.client_info().map(|client| client.name);
    let cap = hosts::wait_cap(name.as_deref());
    Caller::new(name, cap)
}

/// Awaits a read-only request until it is taken back; a panic in it is an error too.
async fn read_only<T>(
    context: &RequestContext<RoleServer>,
    work: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    let internal = |message: String| Err(ErrorData::internal_error(message, None));
    tokio::select! {
        biased;
        done = panic::catch(work) => {
            done.unwrap_or_else(|panic| internal(defect("a resource", &panic).message))
        }
        () = context.ct.cancelled() => internal("the request was cancelled".to_owned()),
    }
}

/// Logs a caught panic and returns it as the problem that the caller sees.
fn defect(what: &str, panic: &Panicked) -> Problem {
    tracing::error!(what, message = panic.0, "a call panicked");
    Problem::new(
        ErrorKind::Internal,
        format!("{what} has a defect: {}", panic.0),
    )
    .with_hint("please report it; other work is not affected, see get_workflow and check_health")
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
        (list.ttl_ms, list.cache_scope) = cache_hints(&context);
        Ok(list)
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut list = resources::templates();
        (list.ttl_ms, list.cache_scope) = cache_hints(&context);
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
        read_only(&context, list).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller(&context);
        let read = resources::read(self.tools.as_ref(), &request.uri, &caller);
        read_only(&context, read).await.map(Into::into)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let answer = self.call(&request.name, arguments, &context).await;
        answer.map(Into::into)
    }

    /// Takes the calls that rmcp cannot read as such: see [`decode::loose_call`].
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if request.method != CALL_TOOL {
            let unknown = ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None);
            return Err(unknown);
        }
        let (name, arguments) = decode::loose_call(request.params)?;
        let answer = self.call(&name, arguments, &context).await?;
        let answer = serde_json::to_value(answer);
        answer
            .map(CustomResult)
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))
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
            self.cancel_reasons.add(id, notification.reason);
        }
    }
}

/// Returns the lifetime, in milliseconds, and the scope of a list that never changes; only the new era has them.
fn cache_hints(context: &RequestContext<RoleServer>) -> (Option<u64>, Option<CacheScope>) {
    let is_new_era = context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
    if is_new_era {
        let lifetime = u64::try_from(LISTS_FRESH_FOR.as_millis());
        (lifetime.ok(), Some(CacheScope::Public))
    } else {
        (None, None)
    }
}
