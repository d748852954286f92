//! Resources: one pool, workflow, output or memory, read by its URI.
//!
//! Every read is a call of a tool, so that a resource and the tool can never differ. Not responsible for notifications of
//! changes: `get_workflow` waits for them.

use crate::api::{
    Caller, CrossPoolSearch, Detail, GetWorkflow, Hit, ItemSelector, ListPools, PoolRow,
    ReadOutput, Tools,
};
use crate::error::{ErrorKind, Problem};
use crate::model::{ItemIndex, PoolName, WorkflowId};
use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde::Serialize;
use serde_json::json;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// The most bytes of text that one resource gives: hosts show at most 40,000 characters whole.
const MAX_TEXT_BYTES: usize = 32_000;

/// The most bytes that `read_output` reads at once.
const PAGE_BYTES: usize = 7_000;

/// The forms of the URIs: template, name, title, description, MIME type.
const TEMPLATES: [[&str; 5]; 4] = [
    [
        "pool://{name}",
        "pool",
        "A pool",
        "The pool's slots, load, health and figures, as in list_pools with detail full.",
        JSON,
    ],
    [
        "workflow://{workflow_id}",
        "workflow",
        "A workflow",
        "The workflow's status, counts, failures and items, as in get_workflow.",
        JSON,
    ],
    [
        "workflow://{workflow_id}/items/{item}/output",
        "output",
        "The output of an item",
        "The stream that explains the item's status, up to 32,000 bytes from its beginning; read_output has the rest.",
        TEXT,
    ],
    [
        "memory://{id}",
        "memory",
        "A memory",
        "A memory with its full text and its origin, as in cross_pool_search.",
        JSON,
    ],
];

/// What a URI names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Pool(PoolName),
    Workflow(WorkflowId),
    Output(WorkflowId, ItemIndex),
    Memory(String),
}

impl Target {
    fn of(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        match scheme {
            "pool" => rest.parse().ok().map(Self::Pool),
            "memory" if !rest.is_empty() => Some(Self::Memory(rest.to_owned())),
            "workflow" => match rest.split('/').collect::<Vec<_>>()[..] {
                [id] => id.parse().ok().map(Self::Workflow),
                [id, "items", item, "output"] => {
                    Some(Self::Output(id.parse().ok()?, item.parse().ok()?))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Returns the templates of all resources.
pub(super) fn templates() -> ListResourceTemplatesResult {
    let template = |[uri, name, title, description, mime]: [&str; 5]| {
        ResourceTemplate::new(uri, name)
            .with_title(title)
            .with_description(description)
            .with_mime_type(mime)
    };
    ListResourceTemplatesResult::with_all_items(TEMPLATES.map(template).into())
}

/// Returns a page of the pools: the resources that are few enough to list.
///
/// # Errors
///
/// The pools could not be listed.
pub(super) async fn list(
    tools: &dyn Tools,
    cursor: Option<String>,
    caller: &Caller,
) -> Result<ListResourcesResult, ErrorData> {
    let asked = ListPools {
        cursor,
        ..ListPools::default()
    };
    let page = tools.list_pools(asked, caller).await;
    let page = page.map_err(|problem| ErrorData::internal_error(with_hint(&problem), None))?;
    let resource = |row: &PoolRow| {
        Resource::new(format!("pool://{}", row.name), row.name.as_str())
            .with_title(format!("Pool {}", row.name))
            .with_mime_type(JSON)
    };
    let mut list = ListResourcesResult::with_all_items(page.pools.iter().map(resource).collect());
    list.next_cursor = page.cursor;
    Ok(list)
}

/// Reads the resource `uri`.
///
/// # Errors
///
/// "Resource not found" where nothing has this URI, else an internal error with what went wrong.
///
/// # Cancel safety
///
/// It only looks; nothing is lost if the future is dropped.
pub(super) async fn read(
    tools: &dyn Tools,
    uri: &str,
    caller: &Caller,
) -> Result<ReadResourceResult, ErrorData> {
    let data = || Some(json!({"uri": uri}));
    let Some(target) = Target::of(uri) else {
        let forms = TEMPLATES.map(|template| template[0]).join(", ");
        let message = format!("no resource is called {uri:.200}; there are {forms}");
        return Err(ErrorData::resource_not_found(message, data()));
    };
    let contents = match target {
        Target::Pool(name) => pool(tools, name, caller).await,
        Target::Workflow(id) => workflow(tools, id, caller).await,
        Target::Output(id, item) => output(tools, id, item, caller).await,
        Target::Memory(id) => memory(tools, id, caller).await,
    };
    match contents {
        Ok((text, mime)) => Ok(ReadResourceResult::new(vec![
            ResourceContents::text(text, uri).with_mime_type(mime),
        ])),
        // The name is all that was given, so that it is what was refused.
        Err(problem)
            if matches!(
                problem.kind,
                ErrorKind::NotFound | ErrorKind::InvalidArgument
            ) =>
        {
            Err(ErrorData::resource_not_found(with_hint(&problem), data()))
        }
        Err(problem) => Err(ErrorData::internal_error(with_hint(&problem), data())),
    }
}

type Contents = (String, &'static str);

/// These types serialise to JSON without fail: their maps have string keys.
fn as_json(value: impl Serialize) -> Contents {
    (serde_json::to_string(&value).unwrap_or_default(), JSON)
}

async fn pool(tools: &dyn Tools, name: PoolName, caller: &Caller) -> Result<Contents, Problem> {
    let asked = ListPools {
        pools: vec![name.clone()],
        detail: Some(Detail::Full),
        cursor: None,
    };
    let row = tools.list_pools(asked, caller).await?.pools.pop();
    row.map(as_json)
        .ok_or_else(|| Problem::new(ErrorKind::NotFound, format!("there is no pool {name}")))
}

async fn workflow(tools: &dyn Tools, id: WorkflowId, caller: &Caller) -> Result<Contents, Problem> {
    let asked = GetWorkflow {
        workflow_id: Some(id),
        ..GetWorkflow::default()
    };
    tools.get_workflow(asked, caller).await.map(as_json)
}

async fn output(
    tools: &dyn Tools,
    id: WorkflowId,
    item: ItemIndex,
    caller: &Caller,
) -> Result<Contents, Problem> {
    let (mut text, mut offset) = (String::new(), 0);
    loop {
        let room = MAX_TEXT_BYTES - text.len();
        let asked = ReadOutput {
            workflow_id: id,
            item: Some(ItemSelector::Index(item)),
            stream: None,
            attempt: None,
            offset: i64::try_from(offset).ok(),
            max_bytes: i64::try_from(room.min(PAGE_BYTES)).ok(),
            tail: false,
        };
        let page = tools.read_output(asked, caller).await?;
        text.push_str(&page.text);
        // A stream that is not finished has a next offset also where nothing more has come yet.
        match page.next_offset {
            Some(next) if next > offset && next < page.total_bytes => offset = next,
            _ => break,
        }
        if text.len() >= MAX_TEXT_BYTES {
            text.push_str(&format!(
                "\n[{} more bytes: read_output with offset {offset}]\n",
                page.total_bytes - offset
            ));
            break;
        }
    }
    Ok((text, TEXT))
}

async fn memory(tools: &dyn Tools, id: String, caller: &Caller) -> Result<Contents, Problem> {
    let mut asked = CrossPoolSearch {
        ids: vec![id],
        ..CrossPoolSearch::default()
    };
    let mut whole: Option<Hit> = None;
    loop {
        let page = tools.cross_pool_search(asked.clone(), caller).await?;
        for part in page.hits {
            match &mut whole {
                Some(whole) => {
                    whole.text.push_str(&part.text);
                    whole.truncated = part.truncated;
                }
                None => whole = Some(part),
            }
        }
        let room = whole
            .as_ref()
            .is_none_or(|whole| whole.text.len() < MAX_TEXT_BYTES);
        match page.cursor {
            Some(cursor) if room => asked.cursor = Some(cursor),
            _ => return Ok(as_json(whole)),
        }
    }
}

/// Returns the problem's message with its next step: hosts show nothing else of a protocol error.
fn with_hint(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{}; {hint}", problem.message),
        None => problem.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_uris_name_something() {
        let id = WorkflowId::new();
        let name = |name: &str| name.parse().expect("a name");
        for (uri, target) in [
            ("pool://local".to_owned(), Target::Pool(name("local"))),
            (format!("workflow://{id}"), Target::Workflow(id)),
            (
                format!("workflow://{id}/items/7/output"),
                Target::Output(id, 7),
            ),
            ("memory://x".to_owned(), Target::Memory("x".to_owned())),
        ] {
            assert_eq!(Target::of(&uri), Some(target), "{uri}");
        }
        for uri in [
            "",
            "pool",
            "pool://",
            "pool://Bad Name",
            "memory://",
            "file:///etc/passwd",
            "workflow://nope",
            &format!("workflow://{id}/"),
            &format!("workflow://{id}/items/-1/output"),
            &format!("workflow://{id}/items/1/output/"),
        ] {
            assert_eq!(Target::of(uri), None, "{uri}");
        }
    }
}
