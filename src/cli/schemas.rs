//! The generated files: one schema per tool, the config's schema, and the README's tables of tools and of redaction rules.

use super::sections::with_section;
use crate::config;
use crate::redact::RULES;
use crate::server::tools::{self, ToolSpec};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The README's tables: between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is the function's result.
const TABLES: [(&str, Table); 2] = [("tools", tools_table), ("redaction", rules_table)];
type Table = fn() -> String;

/// Why a generated file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SchemasError {
    /// A file could not be read or written.
    #[error("write {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The README has no place for a table.
    #[error("{0} lacks the lines `<!-- {1}:begin -->` and `<!-- {1}:end -->`")]
    Markers(PathBuf, &'static str),
}

/// Writes every generated file below the repository `dir`.
///
/// # Errors
///
/// [`SchemasError`] names the file.
pub fn write(dir: &Path) -> Result<(), SchemasError> {
    let folder = dir.join("schemas");
    std::fs::create_dir_all(&folder)
        .map_err(|source| SchemasError::File(folder.clone(), source))?;
    for (name, text) in files() {
        put(&folder.join(name), &text)?;
    }
    let readme = dir.join("README.md");
    let text = std::fs::read_to_string(&readme)
        .map_err(|source| SchemasError::File(readme.clone(), source))?;
    let text = with_tables(&text).map_err(|name| SchemasError::Markers(readme.clone(), name))?;
    put(&readme, &text)
}

fn put(path: &Path, text: &str) -> Result<(), SchemasError> {
    std::fs::write(path, text).map_err(|source| SchemasError::File(path.into(), source))
}

/// Returns the names and texts of all files of `schemas/`.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<_> = tools::all()
        .iter()
        .map(|tool| (format!("{}.json", tool.name), pretty(&snapshot(tool))))
        .collect();
    files.push(("config.json".into(), pretty(&config::schema())));
    files
}

fn snapshot(tool: &ToolSpec) -> Value {
    json!(tool.tool())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Returns `readme` with the tables between their markers, or the table that has none.
fn with_tables(readme: &str) -> Result<String, &'static str> {
    TABLES
        .iter()
        .try_fold(readme.to_owned(), |readme, (name, table)| {
            with_section(&readme, name, &table()).ok_or(*name)
        })
}

fn tools_table() -> String {
    let mut table = String::from("| Tool | Does | |\n|---|---|---|\n");
    for tool in tools::all() {
        let changes = if tool.effect.is_read_only() {
            "reads"
        } else {
            "acts"
        };
        writeln!(table, "| `{}` | {} | {changes} |", tool.name, tool.title)
            .expect("a string takes everything");
    }
    table
}

fn rules_table() -> String {
    let mut table = String::from("| Rule | Replaces |\n|---|---|\n");
    for (name, what) in RULES {
        writeln!(table, "| `{name}` | {what} |").expect("a string takes everything");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: &str = "run `cargo run -- schemas` and look at the difference";

    #[test]
    fn the_generated_files_are_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut expected: Vec<_> = files().into_iter().map(|(name, _)| name).collect();
        for (name, text) in files() {
            let path = root.join("schemas").join(&name);
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "schemas/{name} is out of date: {UPDATE}");
        }
        let mut stored: Vec<_> = std::fs::read_dir(root.join("schemas"))
            .expect("schemas/ is there")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        stored.sort();
        expected.sort();
        assert_eq!(stored, expected, "schemas/ has other files: {UPDATE}");
        let readme = std::fs::read_to_string(root.join("README.md")).expect("a README");
        assert!(
            with_tables(&readme).is_ok_and(|new| new == readme),
            "a table of the README is out of date: {UPDATE}"
        );
    }

    #[test]
    fn a_readme_without_markers_is_left_alone() {
        assert_eq!(with_tables("no markers"), Err("tools"));
    }
}
