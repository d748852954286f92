//! A tool's arguments as flags, made from its schema.

use super::client::{Call, Follow};
use crate::server::tools::{self, ToolSpec};
use clap::builder::{PossibleValuesParser, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

/// The argument that takes everything after `--`.
const TRAILING: &str = "command";

/// Returns the subcommand of `spec`.
pub(super) fn command(spec: &'static ToolSpec) -> Command {
    Command::new(spec.name)
        .about(spec.title)
        .long_about(spec.description)
        .after_help(super::exit::HELP)
        .defer(with_flags)
}

/// Adds the flags of the tool that `command` is named after.
fn with_flags(command: Command) -> Command {
    let spec = tools::find(command.get_name()).expect("a tool's subcommand has its name");
    let mut command = command.arg(
        Arg::new("json")
            .long("json")
            .value_name("OBJECT")
            .help("All arguments as one JSON object; flags are laid over it"),
    );
    for (name, schema) in properties(spec) {
        if !is_trailing(name, schema) {
            command = command.arg(flag(name, schema));
        }
    }
    if let Some((name, schema)) = properties(spec).find(|(name, schema)| is_trailing(name, schema))
    {
        command = command.arg(
            Arg::new(name.as_str())
                .value_name("PROGRAM [ARGUMENT]")
                .num_args(1..)
                .last(true)
                .allow_hyphen_values(true)
                .help(help(schema)),
        );
    }
    if starts_work(spec) {
        command = command.arg(
            Arg::new("no-wait")
                .long("no-wait")
                .action(ArgAction::SetTrue)
                .conflicts_with("wait_s")
                .help("Do not follow the run to its end; what is not done then is interrupted with this program"),
        );
    }
    command
}

/// Reads the call that `matches` ask for.
pub(super) fn call(spec: &'static ToolSpec, matches: &ArgMatches) -> Result<Call, clap::Error> {
    let mut arguments = match matches.get_one::<String>("json") {
        Some(text) => object(spec, text)?,
        None => Map::new(),
    };
    for (name, schema) in properties(spec) {
        if let Some(value) = value(name, schema, matches) {
            arguments.insert(name.clone(), value);
        }
    }
    let no_wait = starts_work(spec) && matches.get_flag("no-wait");
    if no_wait {
        arguments.insert("wait_s".into(), Value::from(0));
    }
    let follow = if !starts_work(spec) || arguments.contains_key("wait_s") {
        Follow::FirstAnswer
    } else {
        Follow::ToTheEnd
    };
    Ok(Call {
        tool: spec.name,
        arguments,
        follow,
    })
}

fn properties(spec: &'static ToolSpec) -> impl Iterator<Item = (&'static String, &'static Value)> {
    spec.input()
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// Tells the tools whose answer may be a workflow that still runs.
fn starts_work(spec: &'static ToolSpec) -> bool {
    let is_workflow = spec.output()["properties"].get("workflow_id").is_some();
    is_workflow && properties(spec).any(|(name, _)| name == "wait_s") && !spec.effect.is_read_only()
}

fn is_trailing(name: &str, schema: &Value) -> bool {
    name == TRAILING && schema["type"] == "array"
}

fn flag(name: &'static str, schema: &'static Value) -> Arg {
    let arg = Arg::new(name)
        .long(name.replace('_', "-"))
        .help(help(schema));
    match schema["type"].as_str() {
        Some("boolean") => arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(value_parser!(bool)),
        Some("integer") => arg
            .value_name("N")
            .allow_negative_numbers(true)
            .value_parser(value_parser!(i64)),
        Some("number") => arg
            .value_name("NUMBER")
            .allow_negative_numbers(true)
            .value_parser(value_parser!(f64)),
        Some("array") => arg
            .value_name("VALUE")
            .action(ArgAction::Append)
            .value_parser(text(&schema["items"])),
        _ => arg.value_name("TEXT").value_parser(text(schema)),
    }
}

fn text(schema: &'static Value) -> ValueParser {
    match schema["enum"].as_array() {
        Some(values) => PossibleValuesParser::new(values.iter().filter_map(Value::as_str)).into(),
        None => value_parser!(String),
    }
}

fn help(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    let repeats = schema["type"] == "array";
    match repeats {
        true => format!("{text} May be given several times."),
        false => text.to_owned(),
    }
}

fn value(name: &str, schema: &Value, matches: &ArgMatches) -> Option<Value> {
    match schema["type"].as_str() {
        Some("boolean") => matches.get_one::<bool>(name).copied().map(Value::from),
        Some("integer") => matches.get_one::<i64>(name).copied().map(Value::from),
        Some("number") => matches.get_one::<f64>(name).copied().map(Value::from),
        Some("array") => matches
            .get_many::<String>(name)
            .map(|values| values.cloned().map(Value::from).collect()),
        _ => matches.get_one::<String>(name).cloned().map(Value::from),
    }
}

fn object(spec: &'static ToolSpec, text: &str) -> Result<Map<String, Value>, clap::Error> {
    serde_json::from_str(text).map_err(|error| {
        let mut refusal = clap::Error::new(ErrorKind::ValueValidation).with_cmd(&command(spec));
        refusal.insert(
            ContextKind::InvalidArg,
            ContextValue::String("--json <OBJECT>".into()),
        );
        refusal.insert(ContextKind::InvalidValue, ContextValue::String(text.into()));
        refusal.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![format!("give one JSON object: {error}").into()]),
        );
        refusal
    })
}
