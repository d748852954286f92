//! Placeholders in the config's templates of a task: `{repo}`, `{task}`, `{item}` and `{workflow_id}`.

use super::Task;
use serde_json::{Map, Value};

/// Replaces the placeholders of one word, each once and none within what another was replaced by.
pub(super) fn fill(word: &str, text: &str, task: &Task) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = [
            ("{task}", text.to_owned()),
            ("{repo}", task.dir.display().to_string()),
            ("{item}", task.item.to_string()),
            ("{workflow_id}", task.workflow.to_string()),
        ];
        match known.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                filled.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// Replaces the placeholders in all texts of `arguments`, at any depth; keys stay as they are.
pub(super) fn fill_all(
    arguments: &Map<String, Value>,
    text: &str,
    task: &Task,
) -> Map<String, Value> {
    let filled = |(key, value): (&String, &Value)| (key.clone(), fill_value(value, text, task));
    arguments.iter().map(filled).collect()
}

fn fill_value(value: &Value, text: &str, task: &Task) -> Value {
    match value {
        Value::String(word) => Value::String(fill(word, text, task)),
        Value::Array(list) => list.iter().map(|it| fill_value(it, text, task)).collect(),
        Value::Object(map) => Value::Object(fill_all(map, text, task)),
        other => other.clone(),
    }
}

/// Returns whether a text of `arguments` names the placeholder.
pub(super) fn names(arguments: &Map<String, Value>, placeholder: &str) -> bool {
    fn in_value(value: &Value, placeholder: &str) -> bool {
        match value {
            Value::String(word) => word.contains(placeholder),
            Value::Array(list) => list.iter().any(|it| in_value(it, placeholder)),
            Value::Object(map) => names(map, placeholder),
            _ => false,
        }
    }
    arguments.values().any(|value| in_value(value, placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_are_filled_once_and_not_within_each_other() {
        let task = Task::example();
        assert_eq!(fill("a {task} b", "say {repo}", &task), "a say {repo} b");
        assert_eq!(fill("{repo}:{item}:{x}{", "t", &task), "/r:7:{x}{");
    }

    #[test]
    fn placeholders_are_filled_at_any_depth_and_nothing_else_is_touched() {
        let task = Task::example();
        let Value::Object(arguments) = json!({
            "{task}": 1,
            "deep": {"list": ["{item}", {"at": "in {repo}/{workflow_id}"}, true, null]},
        }) else {
            unreachable!("an object was written")
        };
        let filled = fill_all(&arguments, "t", &task);
        let at = format!("in /r/{}", task.workflow);
        let expected = json!({
            "{task}": 1,
            "deep": {"list": ["7", {"at": at}, true, null]},
        });
        assert_eq!(Value::Object(filled), expected);
        assert!(names(&arguments, "{repo}") && !names(&arguments, "{task}"));
    }
}
