//! The lines of `setup` and `verify`, and a `command` that is really a line: one argv, or a script for a shell.
//!
//! A line that is one argv is split without a shell. Any other line is run by `sh -euc`, where the worker kind allows
//! `sh`, and is else refused with a form that works. Syntax after POSIX.1-2024, Shell Command Language, 2.2 (quoting), 2.3
//! (token recognition) and 2.6 (word expansions).

use crate::error::Problem;

/// How a script is run: it ends at the first command that fails, and a variable that is not set is an error.
const SHELL: [&str; 2] = ["sh", "-euc"];

/// What a line may be.
const LINE: &str = "command lines, run in order; all must exit 0";

/// Builtin utilities and keywords of a shell that are no programs.
const SHELL_WORDS: &[&str] = &[
    "!", ".", ":", "{", "alias", "case", "cd", "command", "eval", "exec", "exit", "export", "for",
    "hash", "if", "read", "readonly", "return", "set", "shift", "source", "times", "trap", "type",
    "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
];

/// Returns the argvs of the lines of argument `field`.
///
/// # Errors
///
/// A refusal of a line that is empty or has an open quote.
pub(super) fn read(field: &str, lines: &[String]) -> Result<Vec<Vec<String>>, Problem> {
    let numbered = lines.iter().enumerate();
    numbered
        .map(|(number, line)| argv_of(&format!("{field}[{number}]"), line.trim()))
        .collect()
}

fn argv_of(place: &str, line: &str) -> Result<Vec<String>, Problem> {
    let refuse = |message: String| Problem::argument(place, message, LINE);
    if line.contains('\0') {
        return Err(refuse("the line contains a NUL byte".to_owned()));
    }
    let marks = marks(line);
    // Only a here-document may have quotes that do not close.
    let words = match shell_words::split(line) {
        Ok(words) => words,
        Err(_) if line.contains("<<") => Vec::new(),
        Err(error) => return Err(refuse(format!("{line:?} cannot be split: {error}"))),
    };
    if !marks.is_empty() {
        return Ok(script(line));
    }
    if words.first().is_none_or(String::is_empty) {
        return Err(refuse("the line is empty".to_owned()));
    }
    Ok(words)
}

fn script(line: &str) -> Vec<String> {
    SHELL.into_iter().chain([line]).map(str::to_owned).collect()
}

/// Returns `problem`, the refusal of the program of line `number`, with a form of the line that works where that is a
/// script for a shell.
pub(super) fn refused(problem: Problem, field: &str, number: usize, argv: &[String]) -> Problem {
    let [shell, flags, line] = argv else {
        return problem;
    };
    let marks = marks(line);
    let Some((_, mark)) = marks.first().filter(|_| SHELL == [shell, flags]) else {
        return problem;
    };
    let mark = mark.replace('\n', "a line break");
    let hint = match commands(line, &marks) {
        Some(commands) => format!(
            "give each command as a line of its own: {field}: {}",
            json(&commands)
        ),
        None => "put it into a script that the repository holds and give the script's path, or add \"sh\" to `allow` of the \
                 worker kind in the config file"
            .to_owned(),
    };
    Problem {
        field: Some(format!("{field}[{number}]")),
        message: format!("{line:?} needs a shell ({mark}), and sh is not allowed here"),
        hint: Some(hint),
        ..problem
    }
}

/// Returns the commands of a line that only joins commands which each must succeed.
fn commands<'a>(line: &'a str, marks: &[(usize, &str)]) -> Option<Vec<&'a str>> {
    let mut commands = Vec::new();
    let mut from = 0;
    for &(at, mark) in marks {
        if !matches!(mark, "&&" | ";" | "\n") {
            return None;
        }
        commands.push(line[from..at].trim());
        from = at + mark.len();
    }
    commands.push(line[from..].trim());
    commands.retain(|command| !command.is_empty());
    let is_argv = |command: &&str| self::marks(command).is_empty();
    (commands.len() > 1 && commands.iter().all(is_argv)).then_some(commands)
}

/// Returns a form that works of a `command` that is no argv: a whole line in one word, or a shell's operators as words.
pub(super) fn corrected(command: &[String]) -> Option<Vec<String>> {
    if let [line] = command {
        let line = line.trim();
        return match marks(line).is_empty() {
            true if line.contains(char::is_whitespace) => {
                let words = shell_words::split(line);
                Some(words.unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect()))
            }
            true => None,
            false => Some(script(line)),
        };
    }
    // No program takes these as arguments.
    let is_operator = |word: &str| matches!(word, "&&" | "||" | "2>&1");
    if !command.iter().any(|word| is_operator(word)) {
        return None;
    }
    let is_redirection = |word: &str| matches!(word, "|" | ">" | ">>" | "<" | ";" | "&");
    let words = command.iter().map(|word| {
        if is_operator(word) || is_redirection(word) {
            word.into()
        } else {
            shell_words::quote(word)
        }
    });
    Some(script(&words.collect::<Vec<_>>().join(" ")))
}

pub(super) fn json<T: serde::Serialize>(words: &[T]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

/// Returns what only a shell understands in a line, in order: where, and how it is written.
fn marks(line: &str) -> Vec<(usize, &str)> {
    let mut marks = Vec::new();
    marks.extend(first_word(line));
    let mut quote = None;
    let mut in_word = false;
    let mut at = 0;
    while let Some(c) = line[at..].chars().next() {
        let rest = &line[at..];
        let mut length = c.len_utf8();
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            // The next character stands for itself.
            (_, '\\') => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if !in_word => length = rest.find('\n').unwrap_or(rest.len()),
            (Some(_), _) => marks.extend(expansion(rest).map(|mark| (at, mark))),
            (None, _) => {
                let mark = operator(rest).or_else(|| expansion(rest));
                let mark = mark.or_else(|| (c == '~' && !in_word).then_some("~"));
                if let Some(mark) = mark {
                    marks.push((at, mark));
                    length = mark.len();
                }
            }
        }
        in_word = quote.is_some() || !c.is_whitespace();
        at += length;
    }
    marks
}

/// Returns an operator or a pattern that `text` begins with.
fn operator(text: &str) -> Option<&'static str> {
    const OPERATORS: [&str; 9] = ["&&", "||", "|", ";", ">", "<", "&", "*", "?"];
    let mut operators = OPERATORS.into_iter().chain(["\n"]);
    operators.find(|operator| text.starts_with(operator))
}

/// Returns a parameter expansion or a command substitution that `text` begins with.
fn expansion(text: &str) -> Option<&'static str> {
    let names = |c: char| c.is_ascii_alphanumeric() || "_{(?#@*!$-".contains(c);
    match text.strip_prefix('$') {
        Some(rest) if rest.starts_with('(') => Some("$("),
        Some(rest) => rest.starts_with(names).then_some("$"),
        None => text.starts_with('`').then_some("`"),
    }
}

/// Returns the first word of a line where it is an assignment, a builtin or a keyword.
fn first_word(line: &str) -> Option<(usize, &str)> {
    let word = line.split(char::is_whitespace).next().unwrap_or_default();
    let named = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let assigns = word.split_once('=').is_some_and(|(name, _)| named(name));
    let is_shells = assigns || word.starts_with('(') || SHELL_WORDS.contains(&word);
    is_shells.then_some((0, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        let lines = [line.to_owned()];
        let mut read = read("verify", &lines).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        read.remove(0)
    }

    #[test]
    fn a_line_that_is_one_argv_is_split_without_a_shell() {
        for (line, words) in [
            (
                "cargo test -- 'a && b'",
                &["cargo", "test", "--", "a && b"][..],
            ),
            ("grep 'a|b' x\\;y", &["grep", "a|b", "x;y"]),
            ("printf \"%s *\\n\" 'a'", &["printf", "%s *\\n", "a"]),
            ("grep -q 'foo$' f", &["grep", "-q", "foo$", "f"]),
            ("grep foo$ f", &["grep", "foo$", "f"]),
            ("echo \"cost: 5$\"", &["echo", "cost: 5$"]),
            (
                "echo \\$HOME '$HOME' a~b HOME~",
                &["echo", "$HOME", "$HOME", "a~b", "HOME~"],
            ),
            ("make X=1 cdx", &["make", "X=1", "cdx"]),
            ("pytest t.py::test[a-1]", &["pytest", "t.py::test[a-1]"]),
            ("  make test # all & everything\n", &["make", "test"]),
        ] {
            assert_eq!(argv(line), words, "{line:?}");
        }
    }

    #[test]
    fn a_line_with_shell_syntax_is_a_script() {
        for line in [
            "sh ok.sh\nsh bad.sh",
            "a && b",
            "a || b",
            "a | b",
            "a; b",
            "a > f",
            "a 2>&1",
            "a < f",
            "a &",
            "echo `b`",
            "echo \"`b`\"",
            "echo $A",
            "echo ${A}",
            "echo \"$A\"",
            "echo $(b)",
            "cat *.rs",
            "cat ?.rs",
            "ls ~/x",
            "A=1 b",
            "cd x",
            "! grep -q x f",
            "(a)",
            "if a; then b; fi",
            "export A=b",
            ". ./env",
            "test -n 'a' && b",
            "cat <<'E'\nit's\nE",
        ] {
            assert_eq!(argv(line), ["sh", "-euc", line], "{line:?}");
        }
    }

    #[test]
    fn no_line_is_empty_or_open() {
        for line in [
            "",
            "  ",
            "\n",
            "# only a comment",
            "'open",
            "a && \"open",
            "a\0b",
        ] {
            let problem = read("setup", &["true".to_owned(), line.to_owned()]);
            let problem = problem.expect_err(line);
            assert_eq!(problem.field.as_deref(), Some("setup[1]"), "{line:?}");
        }
    }

    #[test]
    fn a_refused_script_comes_with_a_form_that_works() {
        let refused = |line: &str| {
            let problem = Problem::argument("verify", "no sh", "make");
            refused(problem, "verify", 2, &argv(line))
        };
        let lines = "verify: [\"cargo build\",\"cargo test -- 'a b'\"]";
        for line in [
            "cargo build && cargo test -- 'a b'",
            "cargo build\ncargo test -- 'a b'",
            "cargo build; cargo test -- 'a b';",
        ] {
            let problem = refused(line);
            assert_eq!(problem.field.as_deref(), Some("verify[2]"));
            assert!(
                problem
                    .hint
                    .as_ref()
                    .is_some_and(|hint| hint.ends_with(lines)),
                "{problem:?}"
            );
        }
        let piped = refused("cargo test | tee log");
        assert!(piped.message.contains("(|)"), "{piped}");
        assert!(piped.hint.is_some_and(|hint| hint.contains("script")));
        assert_eq!(refused("make test").message, "no sh", "no script");
    }

    #[test]
    fn a_command_that_is_a_line_is_corrected() {
        let corrected = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            corrected(&words)
        };
        assert_eq!(
            corrected(&["npm test"]).expect("two words"),
            ["npm", "test"]
        );
        assert_eq!(corrected(&["a && b"]).expect("a script"), script("a && b"));
        assert_eq!(corrected(&["ls|wc"]).expect("a script"), script("ls|wc"));
        assert_eq!(
            corrected(&["npm", "ci", "&&", "npm", "run", "the test", ">", "log"])
                .expect("a script"),
            script("npm ci && npm run 'the test' > log")
        );
        assert_eq!(corrected(&["npm"]), None);
        assert_eq!(corrected(&["find", ".", "-exec", "rm", "{}", ";"]), None);
        assert_eq!(corrected(&["sh", "-c", "a && b"]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = read("verify", std::slice::from_ref(&line));
            let _ = corrected(&[line]);
        }

        #[test]
        fn no_line_of_shell_syntax_panics(line in "[ab ~$`'\"\\\\&|;<>*?!#=(\n]{0,20}") {
            if let Ok(argvs) = read("verify", std::slice::from_ref(&line)) {
                let _ = refused(Problem::argument("v", "m", "a"), "verify", 0, &argvs[0]);
            }
            let _ = corrected(&[line]);
        }
    }
}
