//! Values in another JSON type than the schema's, as hosts and models send them, where only one meaning is possible.
//!
//! Observed: lists, numbers and booleans as JSON texts (`"[\"a\"]"`, `"5"`, `"true"`), one value in place of a list,
//! whole numbers as fractions (`5.0`), and the whole of the arguments as one JSON text. Not responsible for refusals: what
//! cannot be converted stays as it is, for the decoder to refuse.

use serde_json::{Map, Value};

/// Brings each of `arguments` to the type that `properties`, the schemas of a tool's arguments, give it.
pub(super) fn arguments(arguments: &mut Map<String, Value>, properties: &Map<String, Value>) {
    for (name, value) in arguments.iter_mut() {
        let wanted = properties
            .get(name)
            .and_then(|schema| schema["type"].as_str());
        if let Some(converted) = wanted.and_then(|wanted| converted(value, wanted)) {
            *value = converted;
        }
    }
    // `"null"` may have become null.
    arguments.retain(|_, value| !value.is_null());
}

/// Returns `value` as the JSON type `wanted`; none where it is of that type or cannot be brought to it.
fn converted(value: &Value, wanted: &str) -> Option<Value> {
    match (wanted, value) {
        ("string", _) | ("array", Value::Array(_)) => None,
        (_, Value::String(text)) => {
            let parsed = serde_json::from_str(text)
                .ok()
                .filter(|parsed| is(parsed, wanted));
            match parsed {
                Some(parsed) => Some(converted(&parsed, wanted).unwrap_or(parsed)),
                None if wanted == "array" => Some(Value::Array(vec![value.clone()])),
                None => None,
            }
        }
        ("array", Value::Number(_)) => Some(Value::Array(vec![value.clone()])),
        ("integer", Value::Number(number)) => whole(number.as_f64()?).filter(|_| number.is_f64()),
        _ => None,
    }
}

/// Returns whether a parsed text is of the JSON type `wanted`, or null, which is no value.
fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => wanted == "boolean",
        Value::Number(_) => matches!(wanted, "integer" | "number"),
        Value::Array(_) => wanted == "array",
        Value::Object(_) => wanted == "object",
        Value::String(_) => false,
    }
}

/// Returns the whole number that `number` is, where a fraction holds it exactly.
fn whole(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    (number.fract() == 0.0 && number.abs() < EXACT).then(|| Value::from(number as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_texts_are_read_as_the_wanted_type() {
        for (text, wanted, expected) in [
            (r#"["a","b"]"#, "array", json!(["a", "b"])),
            ("[]", "array", json!([])),
            ("a", "array", json!(["a"])),
            ("web-*, api", "array", json!(["web-*, api"])),
            ("5", "array", json!(["5"])),
            ("[ab]*", "array", json!(["[ab]*"])),
            ("null", "array", Value::Null),
            ("5", "integer", json!(5)),
            (" 5.0 ", "integer", json!(5)),
            ("0.5", "number", json!(0.5)),
            ("5", "number", json!(5)),
            ("true", "boolean", json!(true)),
            ("null", "number", Value::Null),
        ] {
            assert_eq!(
                converted(&json!(text), wanted),
                Some(expected),
                "{text} as {wanted}"
            );
        }
    }

    #[test]
    fn values_with_two_meanings_stay_as_they_are() {
        for (value, wanted) in [
            (json!("5"), "string"),
            (json!("[\"a\"]"), "string"),
            (json!(["5"]), "array"),
            (json!("five"), "integer"),
            (json!("5"), "boolean"),
            (json!("True"), "boolean"),
            (json!("\"5\""), "integer"),
            (json!("true"), "number"),
            (json!(true), "array"),
            (json!({"a": 1}), "array"),
            (json!(1.5), "integer"),
            (json!(1e30), "integer"),
            (json!(7), "integer"),
            (json!(7), "number"),
        ] {
            assert_eq!(converted(&value, wanted), None, "{value} as {wanted}");
        }
    }
}
