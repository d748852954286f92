//! The line of a program's output that a person would quote as the reason of its failure.
//!
//! Tools end with phrases that name no reason ("error: could not compile", `make: *** [all] Error 2`, "npm error A complete
//! log of this run"), so the last line that looks like an error is mostly the wrong one. Every line of both streams is
//! classified by its shape instead, and the first one of the best class is taken. `tests/causes` holds outputs of real
//! tools with the line that is wanted.

use crate::text::on_screen;
use regex::RegexSet;
use serde_json::Value;
use std::sync::LazyLock;

/// How well a line explains a failure, from nothing to a statement of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A closing phrase, a frame of a stack trace, an excerpt of code, a hint.
    Noise,
    /// Any other text.
    Text,
    /// Text with a word that failures have.
    Suspect,
    /// A line that announces a failure without its reason: a test's name, a log entry.
    Heading,
    /// A statement of the reason, in a shape that tools use for it.
    Reason,
    /// The operating system's own reason; what tools make of it is a consequence.
    System,
}

/// Returns the line of a failed program's output that most likely says why it failed; none where nothing was written.
pub(super) fn telling_line(stdout: &str, stderr: &str) -> Option<String> {
    let streams = [on_screen(stderr), on_screen(stdout)];
    // The event streams of agent programs: the last error counts, those before were retried.
    let mut events = streams
        .iter()
        .flat_map(|stream| stream.lines())
        .filter_map(event_error);
    if let Some(message) = events.next_back() {
        return Some(message);
    }
    let mut best: Option<(Class, String)> = None;
    for stream in &streams {
        let found = best_of(stream);
        if let Some(found) = found
            && best.as_ref().is_none_or(|best| best.0 < found.0)
        {
            best = Some(found);
        }
    }
    best.map(|(_, line)| line)
}

/// Returns the best line of one stream. Of several reasons the first counts, as what follows is mostly its consequence; of
/// lines that are just text the last.
fn best_of(stream: &str) -> Option<(Class, String)> {
    let mut best: Option<(Class, String)> = None;
    let mut after_panic = false;
    let mut in_framed_warning = false;
    let mut chained = None;
    for raw in stream.lines() {
        let line = bare(raw);
        let is_framed = raw.trim_start().starts_with('│');
        in_framed_warning = is_framed && (in_framed_warning || line.starts_with("Warning"));
        if in_framed_warning {
            continue;
        }
        if !line.contains(char::is_alphanumeric) {
            continue;
        }
        let mut class = classify(line);
        let is_stated = std::mem::replace(&mut after_panic, is_panic(line)) || is_root(raw);
        if is_stated && class > Class::Noise {
            class = class.max(Class::Reason);
        }
        // Python: the exception before was the reason of the next one, which is the one that was not caught.
        if CHAINS.is_match(line) {
            chained = best.take();
            continue;
        }
        let is_better = best.as_ref().is_none_or(|best| match class {
            Class::Text => best.0 <= class,
            _ => best.0 < class,
        });
        if is_better {
            best = Some((class, line.to_owned()));
        }
    }
    match (&best, chained) {
        (Some(best), Some(chained)) if best.0 < chained.0 => Some(chained),
        (None, chained) => chained,
        _ => best,
    }
}

/// Returns a line without the frame that some tools draw around their messages.
fn bare(line: &str) -> &str {
    line.trim()
        .trim_start_matches(['│', '╭', '╰', '─', '▶', '╷', '╵', '|'])
        .trim_start()
}

fn classify(line: &str) -> Class {
    if NOISE.is_match(line) {
        return Class::Noise;
    }
    if SYSTEM.is_match(line) {
        return Class::System;
    }
    if REASON.is_match(line) {
        return Class::Reason;
    }
    if HEADING.is_match(line) {
        return Class::Heading;
    }
    if SUSPECT.is_match(line) {
        return Class::Suspect;
    }
    Class::Text
}

/// Rust: the message of a panic stands below its place.
fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains("panicked at ") && line.ends_with(':')
}

/// The last link of a chain of causes, as Rust and Node programs draw it.
fn is_root(line: &str) -> bool {
    line.trim_start().starts_with("╰─▶ ")
}

/// Returns the error of one line of a JSON event stream.
fn event_error(line: &str) -> Option<String> {
    if !line.starts_with('{') {
        return None;
    }
    let event: Value = serde_json::from_str(line).ok()?;
    let error = &event["error"];
    let places = [&error["data"]["message"], &error["message"], error];
    let failed = event["is_error"] == true || event["type"] == "error";
    let own = [&event["result"], &event["message"]];
    let own = own.into_iter().filter(|_| failed);
    let message = places
        .into_iter()
        .take(2)
        .chain(own)
        .chain(places.into_iter().skip(2).filter(|_| failed));
    message
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .find(|text| !text.is_empty())
}

static CHAINS: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        r"^The above exception was the direct cause of the following exception:",
        r"^During handling of the above exception, another exception occurred:",
    ])
});

static NOISE: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        // Closing phrases: make, cargo, compilers and linkers.
        r"^\w*make(\[\d+\])?: \*\*\* \[.*\] Error \d+",
        r"^\w*make(\[\d+\])?: (\*\*\* Waiting|Entering|Leaving|Target)",
        r"^error: (could not compile|aborting due to|test failed|doctest failed|\d+ targets? failed|linking with|failed to run custom build)",
        r"^(For more information about|Some errors have detailed|process didn't exit successfully)",
        r"^collect2: |^cc1\w*: (all|some) warnings|^compilation terminated|^\d+ (error|warning)s?( generated)?\.?$",
        r"^Configuring incomplete|^ninja: build stopped|^FAILED: [^ ]+\.o",
        // Closing phrases: test runners and linters.
        r"^test result: |^test .* \.\.\. \w+|^failures:$|^running \d+ tests?$|^---- .* stdout ----$|^(Doc-tests|Running|Finished|Compiling|Checking|Blocking) ",
        r"^FAILED \((failures|errors)|^Ran \d+ tests?|^(FAIL|ok|PASS)(\s+\S+\s+([\d.]+s|\(cached\)|\[.*\]))?$|^exit status \d+$",
        r"^(Test Suites|Test Files|Tests|Snapshots|Time|Duration|Start at|Ran all test suites)\b",
        r"^=+ \d+ (failed|passed|errors?|skipped|deselected).* =+$|^!+ .* !+$|^\S* ?[.FEsxX]+ +\[ *\d+%\]$|^(ERROR|FAIL): \S+ \(\S+\)$|^\d+ (failed|passed|error|failing|passing|pending)\b",
        r"^(✖ )?\d+ problems? \(|^Found \d+ errors?|^\[\*\] \d+ fixable",
        // Closing phrases: package managers, git, others.
        r"^npm (error|ERR!)( (code|errno|syscall|path|dest|signal|command|cwd|A complete log|Lifecycle|Exit|Usage).*)?$|^npm (notice|warn|WARN)",
        r"ELIFECYCLE|^Error: ERR_[A-Z_]+$|^× installing dependencies$",
        r"^fatal: Could not read from remote repository|^Please make sure you have the correct access|^and the repository exists",
        r"^(error: failed to push some refs|Automatic merge failed|(error: )?[Cc]ould not apply|Aborting$|hint:)",
        r"^\[(ERROR|INFO)\] *(COMPILATION ERROR|BUILD FAILURE|-+|(To see|Re-run|For more information|\[Help|After correcting|Failed to execute goal .*:compile ).*)?:? *$",
        // Stack traces and the excerpts of code that compilers show.
        r"^at |^\S+\.py:\d+: in |^\d+: +\S|^stack backtrace:|^Traceback \(|^File .*, line \d+|^goroutine \d+|^\S+\.go:\d+ \+0x|^created by |^\.\.\. \d+ more",
        r"^\d+ *\| |^--> |^[~^ |]+$|^Require stack|^Node\.js v\d|^node:|^throw |^code: |^\.{3} ",
        // What was run, and advice.
        r"^[>$+] \S|^(note|help|warning|WARNING|Warning|warn|WARN)\b ?[:(]|^= (help|note): (for further|`|to override|#\[|some arguments)|^\[\d+ earlier bytes left out\]$",
        r"^(\[|\x28)?(warn|WARN|WARNING)\b",
        r": (warning|note): ",
    ])
});

static SYSTEM: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        r"(?i)\b(no space left on device|disk quota exceeded|too many open files|read-only file system|cannot allocate memory)\b",
    ])
});

static REASON: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        // `error: ...`, `error[E0308]: ...`, `fatal error: ...`, `CMake Error at ...`.
        r"^(fatal |internal |compiler |syntax |runtime |CMake )?(error|Error|ERROR|fatal|FATAL|Fatal|panic|PANIC)(\[[\w:-]+\]| TS\d+| at [^:]+:\d+.*)?: *\S?",
        r"^\[(ERROR|error|FATAL|fatal)\] \S",
        r"[:)] (fatal )?error( TS\d+|\[\w+\])?: \S",
        r"^\d+:\d+ +error +\S",
        r"^npm (error|ERR!) \S",
        // Exceptions: `ValueError: ...`, `AssertionError [ERR_X]: ...`, `java.lang.IllegalStateException: ...`.
        r"^(Uncaught )?([a-z][\w.]*\.)?[A-Z]\w*(Error|Exception|Exit|Interrupt)( \[\w+\])?: \S",
        r"^(E {2,}|Exception in thread |panic: |CONFLICT \(|! \[(remote )?rejected\]|expect\()\S?",
        r"^[A-Z]{1,4}\d{3,4} (\[\*\] )?\S",
        // A place in a file, then the message.
        r"^\S+\.\w+:(\d+:)+ \S",
        r"^\S+\.\w+\(\d+(,\d+)?\): \S",
        r"^Diff in ",
        // `PROGRAM: what could not be done`, and the same as a sentence.
        r"(?i)\b(no such file|not found|permission denied|access denied|connection refused|connection reset|no space left|timed out|does not exist|already exists|unbound variable|undefined (reference|symbol|variable)|no module named|unknown (command|option|argument|revision)|unrecognized|out of memory|cannot open|address already in use|name or service not known)\b",
        r"^(Cannot|cannot|Can't|Could not|Couldn't|could not|Unable to|unable to|Failed to|failed to|Missing|No such|Invalid|Unexpected|Unknown|Unsupported) ",
        r"^[\w./() -]+: (\(\d+\) )?(cannot|can't|could not|couldn't|unable to|failed|invalid|missing|unexpected|unknown|unsupported|error) ?",
        r"(?i)\bcouldn't find\b|\b(is|was) (missing|not (defined|declared|installed|supported|valid|a valid))\b",
        // A level of a log.
        r"^\S+ \S+ (\[?(ERROR|FATAL|CRITICAL|SEVERE)\]?)\b",
    ])
});

static HEADING: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        r"^(--- )?(FAIL|FAILED|ERROR)\b|^[×✕✖✗●❯] |^level=(error|fatal)| level=(error|fatal) ",
        r"^\w+( \w+)? failed\b",
    ])
});

static SUSPECT: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        r"(?i)\b(errors?|fail(ed|s|ure|ures)?|panic(ked)?|fatal|exceptions?|denied|refused|cannot|can't|couldn't|could not|unable|invalid|missing|mismatch|unexpected|abort(ed)?|rejected|crash(ed)?|killed|does not|doesn't|must)\b",
    ])
});

fn set(patterns: &[&str]) -> RegexSet {
    RegexSet::new(patterns).expect("the patterns are tested")
}
