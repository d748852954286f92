//! What the instruction counts reach and nothing else may.

use super::{answer, decode, line, tools};
use crate::api::{Health, ListPools, ListPoolsResult, PoolRow};
use crate::error::Problem;
use rmcp::model::{JsonObject, JsonRpcMessage, NumberOrString};

/// Reads the arguments of `list_pools`.
///
/// # Errors
///
/// The refusal of one argument.
pub fn decode_list_pools(arguments: JsonObject) -> Result<ListPools, Problem> {
    let spec = tools::find("list_pools").expect("it is one of the tools");
    decode::arguments(spec, arguments)
}

/// Returns an answer of `list_pools` with so many pools.
pub fn pools(count: u32) -> ListPoolsResult {
    let row = |number| PoolRow {
        name: format!("p{number}").parse().expect("a pool's name"),
        worker: "command".to_owned(),
        labels: vec!["fast".to_owned()],
        max_workers: 8,
        in_flight: 3,
        queued: 0,
        load: 0.375,
        health: Health::Healthy,
        succeeded: None,
        failed: None,
        p50_ms: None,
        p95_ms: None,
        other_servers_in_flight: None,
        temporary: false,
        error: None,
    };
    ListPoolsResult {
        total: u64::from(count),
        pools: (0..count).map(row).collect(),
        cursor: None,
    }
}

/// Writes a result as the tool's answer, as the client reads it.
pub fn encode_list_pools(result: ListPoolsResult) -> Vec<u8> {
    let result = serde_json::to_string(&result).expect("a result is JSON");
    let answer = answer::success("list_pools", result, Vec::new());
    let message = JsonRpcMessage::response(answer.into(), NumberOrString::Number(1));
    let mut bytes = Vec::new();
    line::append(&message, &mut bytes).expect("a message is JSON");
    bytes
}
