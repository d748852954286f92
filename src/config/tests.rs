use super::*;
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::PoolName;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

fn sources(start_dir: &Path) -> Sources {
    Sources {
        env: Overrides::default(),
        flags: Overrides::default(),
        default_file: None,
        default_state_dir: "/state".into(),
        start_dir: start_dir.to_owned(),
        home: Some("/home/ada".into()),
        cores: NonZeroUsize::new(3).expect("not zero"),
        path: OsString::new(),
    }
}

fn read(text: &str) -> Result<Config, ConfigError> {
    check::config(
        Path::new("/etc/m.toml"),
        text,
        &sources(Path::new("/start")),
    )
}

fn refused(text: &str) -> Problem {
    let problem = match read(text) {
        Ok(config) => panic!("accepted {text}: {config:?}"),
        Err(error) => error.problem(),
    };
    assert_eq!(problem.kind, ErrorKind::InvalidArgument, "{problem:?}");
    assert!(!problem.retryable);
    assert!(problem.hint.is_some(), "no next step: {problem:?}");
    problem
}

#[test]
fn the_example_sets_every_key_and_loads() {
    let text = include_str!("../../examples/mahavishnu.toml");
    let config = read(text).unwrap_or_else(|error| panic!("{}", error.problem().message));
    assert_eq!(config.pools.len(), 4);
    assert_eq!(
        config.roots,
        RootsConfig::Given(
            vec!["/home/ada/src".into(), "/home/ada/work".into()],
            NamedBy::File
        )
    );
    assert_eq!(
        config.limits,
        Limits {
            output_tail: 2_048,
            worktrees_max_bytes: Some(100_000_000_000),
            ..Limits::default()
        }
    );
    assert_eq!(config.cache, CacheConfig::default());
    assert_eq!(
        config.workers["command"].timeout,
        Some(Duration::from_secs(30 * 60))
    );
    assert!(
        matches!(&config.workers["translator"].kind, WorkerKind::Mcp(mcp) if mcp.tool == "translate")
    );
    assert!(
        matches!(&config.workers["claude"].kind, WorkerKind::Agent(agent) if agent.preset.name == "claude")
    );
    assert_eq!(
        config.session_buddy,
        Some(PeerConfig::Http {
            url: "http://127.0.0.1:8678/mcp".into(),
            headers: BTreeMap::new(),
        })
    );
}

#[test]
fn without_a_file_there_is_a_local_pool_and_one_for_each_agent_program() {
    let bin = tempfile::tempdir().expect("a folder");
    for (name, mode) in [("claude", 0o755), ("gemini", 0o644)] {
        let program = bin.path().join(name);
        std::fs::write(&program, "").expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).expect("set");
    }
    let mut sources = sources(Path::new("/start"));
    sources.path = bin.path().into();
    let config = Config::load(&sources).expect("the defaults");
    let pools: Vec<_> = config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.max_workers))
        .collect();
    assert_eq!(pools, [("local", 3), ("claude", 2)]);
    assert!(
        matches!(&config.workers["command"].kind, WorkerKind::Command(command) if command.allow == Allow::Any)
    );
    assert_eq!(
        config.roots,
        RootsConfig::StartDir {
            dir: "/start".into(),
            home: Some("/home/ada".into())
        }
    );
    assert_eq!(config.store.dir, Path::new("/state"));
}

#[test]
fn every_default_pool_has_a_good_name() {
    for preset in &AGENT_PRESETS {
        assert!(preset.name.parse::<PoolName>().is_ok(), "{}", preset.name);
        assert_eq!(super::preset(preset.name), Some(preset));
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("m.toml");
    std::fs::write(
        &file,
        "roots = ['code']\n[store]\ndir = '/file'\n[log]\nfilter = 'info'\n",
    )
    .expect("written");
    let mut sources = sources(Path::new("/start"));
    sources.default_file = Some(file.clone());
    let config = Config::load(&sources).expect("loads");
    assert_eq!(
        config.roots,
        RootsConfig::Given(vec![folder.path().join("code")], NamedBy::File)
    );
    assert_eq!(
        (config.store.dir.as_path(), config.log.filter.as_str()),
        (Path::new("/file"), "info")
    );

    sources.env = Overrides::from_env(|name| match name {
        "MAHAVISHNU_STATE_DIR" => Some("env".into()),
        "MAHAVISHNU_ROOTS" => Some("/a:b".into()),
        "MAHAVISHNU_LOG" => Some("debug".into()),
        "MAHAVISHNU_CONFIG" => Some("".into()),
        _ => None,
    });
    sources.flags.log = Some("trace".into());
    let config = Config::load(&sources).expect("loads");
    assert_eq!(config.file, Some(file));
    assert_eq!(
        config.roots,
        RootsConfig::Given(vec!["/a".into(), "/start/b".into()], NamedBy::Environment)
    );
    assert_eq!(
        (config.store.dir.as_path(), config.log.filter.as_str()),
        (Path::new("/start/env"), "trace")
    );
}

#[test]
fn a_file_that_was_named_must_be_there_and_the_default_one_need_not() {
    let mut sources = sources(Path::new("/start"));
    sources.default_file = Some("/nowhere/m.toml".into());
    assert_eq!(Config::load(&sources).expect("the defaults").file, None);
    sources.flags.file = Some("/nowhere/m.toml".into());
    let problem = Config::load(&sources).expect_err("missing").problem();
    assert_eq!(problem.kind, ErrorKind::NotFound);
    assert!(problem.message.contains("/nowhere/m.toml"), "{problem:?}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let problem = refused("roots = []\n[[pools]]\nname = 'a'\nworker = 'claude'\nmax_worker = 3\n");
    assert_eq!(
        problem.message,
        "/etc/m.toml:5: unknown key `pools[0].max_worker`"
    );
    assert_eq!(problem.hint.as_deref(), Some("did you mean max_workers?"));
    assert_eq!(problem.field.as_deref(), Some("pools[0].max_worker"));
    assert!(problem.allowed.expect("keys").contains("queue"));

    for (text, line, key) in [
        ("pool = []", 1, "pool"),
        ("[workers.x]\nallows = []", 2, "workers.x.allows"),
        (
            "[workers.x]\nkind = 'mcp'\nserver.uri = 'http://a'",
            3,
            "workers.x.server.uri",
        ),
        ("[session_buddy]\nurls = ''", 2, "session_buddy.urls"),
        ("[limits]\n\nlogcap = ''", 3, "limits.logcap"),
        ("[zzz]\na = 1", 1, "zzz"),
    ] {
        let problem = refused(text);
        let expected = format!("/etc/m.toml:{line}: unknown key `{key}`");
        assert_eq!(problem.message, expected, "{text}");
    }
}

#[test]
fn free_tables_take_any_key() {
    let text = "[workers.x]\nkind = 'mcp'\nserver.command = ['s']\ntool = 't'\n[workers.x.arguments]\na.b = 1\n\
                [workers.y.env]\nANY = 'v'";
    let config = read(text).expect("loads");
    assert!(
        matches!(&config.workers["x"].kind, WorkerKind::Mcp(mcp) if mcp.arguments["a"]["b"] == 1)
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_what_it_may_be() {
    let pool = |rest: &str| format!("[[pools]]\nname = 'a'\nworker = 'claude'\n{rest}");
    let worker = |rest: &str| format!("[workers.w]\n{rest}");
    let cases: Vec<(String, &str, &str)> = vec![
        (
            pool("max_workers = 0"),
            "4: `pools[0].max_workers` is 0",
            "1 to 10000",
        ),
        (
            pool("max_workers = -1"),
            "4: `pools[0].max_workers` is -1",
            "1 to 10000",
        ),
        (pool("max_workers = 10001"), "is 10001", "1 to 10000"),
        (
            pool("max_workers = 9000000000"),
            "is 9000000000",
            "1 to 10000",
        ),
        (
            pool("max_workers = 'many'"),
            "4: `pools[0].max_workers` has a wrong value",
            "i64",
        ),
        (
            pool("labels = ['a b']"),
            "4: `pools[0].labels[0]` is \"a b\"",
            "without blanks",
        ),
        (
            pool("queue = 100001"),
            "`pools[0].queue` is 100001",
            "0 to 100000",
        ),
        (
            "[[pools]]\nname = 'A b'\nworker = 'claude'".into(),
            "2: `pools[0].name` is \"A b\"",
            "a-z 0-9",
        ),
        (
            "[[pools]]\nname = 'a'\nworker = 'x'".into(),
            "3: `pools[0].worker` is \"x\", which is not defined",
            "claude",
        ),
        (
            "[[pools]]\nname = 'a'\nworker = 'rev'\n[workers.revi]".into(),
            "did you mean \"revi\"?",
            "revi",
        ),
        ("[[pools]]\nname = 'a'".into(), "missing field `worker`", ""),
        (
            "[[pools]]\nname = 'a'\nworker = 'claude'\n[[pools]]\nname = 'a'\nworker = 'claude'"
                .into(),
            "5: `pools[1].name` is a again, the name of pools[0]",
            "no other pool",
        ),
        (
            worker("kind = 'nats'"),
            "2: `workers.w.kind` is nats",
            "command, mcp",
        ),
        (worker("kind = 'agent'"), "name the agent program", "codex"),
        (
            worker("kind = 'comand'"),
            "did you mean \"command\"?",
            "command",
        ),
        (
            worker("command = []"),
            "2: `workers.w.command` is empty",
            "a list",
        ),
        (
            worker("command = ['npm test']"),
            "write [\"npm\", \"test\"]",
            "a list",
        ),
        (
            worker("command = 'npm test'"),
            "`workers.w.command` has a wrong value",
            "a sequence",
        ),
        (
            worker("allow = ['git', 'npm test']"),
            "`workers.w.allow[1]` is \"npm test\"",
            "program names",
        ),
        (
            worker("env_pass = ['A=B']"),
            "`workers.w.env_pass[0]`",
            "a name",
        ),
        (
            worker("timeout = '5 parsecs'"),
            "`workers.w.timeout` is \"5 parsecs\"",
            "\"5m\"",
        ),
        (
            worker("tool = 'x'"),
            "`workers.w.tool` does not belong",
            "remove it",
        ),
        (
            worker("kind = 'mcp'"),
            "`workers.w.server` is missing",
            "url or command",
        ),
        (
            worker("kind = 'mcp'\nserver = {}\ntool = 't'"),
            "has neither url nor command",
            "url =",
        ),
        (
            worker("kind = 'mcp'\nserver.url = 'ftp://x'\ntool = 't'"),
            "`workers.w.server.url` is",
            "http://",
        ),
        (
            worker(
                "kind = 'mcp'\nserver.url = 'http://x'\ntool = 't'\narguments.a = ['in {repository}']",
            ),
            "`workers.w.arguments.a[0]` has {repository}, which is no placeholder; did you mean {repo}?",
            "{task}",
        ),
        (
            worker("kind = 'mcp'\nserver.url = 'http://x'\ntool = 't'\nallow = ['']"),
            "`workers.w.allow[0]` is",
            "",
        ),
        (
            worker("kind = 'mcp'\nserver.url = 'http://x'\nserver.env.A = 'b'\ntool = 't'"),
            "`workers.w.server.env` goes with command only",
            "give command",
        ),
        (
            worker("kind = 'mcp'\nserver.command = ['x']\nserver.headers.A = 'b'\ntool = 't'"),
            "`workers.w.server.headers` goes with url only",
            "give url",
        ),
        (
            worker(
                "kind = 'mcp'\nserver.url = 'http://x'\nserver.headers.'a b' = 'secret'\ntool = 't'",
            ),
            "`workers.w.server.headers.a b` is no HTTP header",
            "letters",
        ),
        (
            worker("kind = 'mcp'\nserver.url = 'http://x'"),
            "`workers.w.tool` is missing",
            "the name of one",
        ),
        (
            worker("kind = 'mcp'\nserver.url = 'http://x'\ntool = 't'\ncommand = ['c']"),
            "`workers.w.command` does not belong",
            "remove it",
        ),
        (
            worker("kind = 'session-buddy'\nserver.url = 'http://x'\nallow = ['git']"),
            "`workers.w.allow` does not belong",
            "remove it",
        ),
        (
            worker("kind = 'session-buddy'"),
            "`workers.w.server` is missing",
            "[session_buddy]",
        ),
        (
            "[limits]\nlog_cap = '1 lightyear'".into(),
            "2: `limits.log_cap` is",
            "MiB",
        ),
        (
            "[limits]\ngrace = '11m'".into(),
            "`limits.grace` is \"11m\"",
            "0s to 10m",
        ),
        (
            "[cache]\nttl = '0s'".into(),
            "`cache.ttl` is \"0s\"",
            "1s to 1day",
        ),
        (
            "[store]\ndurability = 'some'".into(),
            "`store.durability` is \"some\"",
            "\"normal\"",
        ),
        (
            "[store]\nretention = '1s'".into(),
            "`store.retention` is \"1s\"",
            "1h or more",
        ),
        (
            "[store]\nretention_notes = 'ever'".into(),
            "`store.retention_notes` is \"ever\"",
            "1h or more",
        ),
        ("[log]\nfilter = 'a=b=c'".into(), "`log.filter`", "warn"),
        ("roots = ['']".into(), "`roots[0]` is no path", "a folder"),
    ];
    for (text, message, allowed) in cases {
        let problem = refused(&text);
        assert!(
            problem.message.contains(message),
            "{text}\n{}",
            problem.message
        );
        let names = problem.allowed.expect("says what is allowed");
        assert!(names.contains(allowed), "{text}\n{names}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let problem = refused("roots = []\nlog = {");
    assert!(
        problem.message.starts_with("/etc/m.toml:2: not TOML"),
        "{problem:?}"
    );
    let problem = refused("[[pools]]\nname = a\n");
    assert!(
        problem.message.starts_with("/etc/m.toml:2: not TOML"),
        "{problem:?}"
    );
}

#[test]
fn no_text_makes_it_panic() {
    use proptest::prelude::*;
    let pieces = prop_oneof![
        Just("[[pools]]\n"),
        Just("[workers.x]\n"),
        Just("name = 'a'\n"),
        Just("worker = 'x'\n"),
        Just("max_workers = 3\n"),
        Just("server.url = 1\n"),
        Just("["),
        Just("\"é"),
        Just("\n"),
        Just("= 9e9"),
        Just("command = [['a']]\n"),
        Just("[limits]\n"),
        Just("grace = '1s'\n"),
    ];
    proptest!(|(parts in prop::collection::vec(pieces, 0..12))| {
        let _checked = read(&parts.concat());
    });
}

#[test]
fn braces_that_are_no_placeholders_stay_in_a_tools_arguments() {
    let text = "[workers.x]\nkind = 'mcp'\nserver.url = 'http://a'\ntool = 't'\n\
                arguments.text = 'fn main() {} {prompt} {x {task}'";
    let config = read(text).unwrap_or_else(|error| panic!("{}", error.problem().message));
    assert!(config.workers["x"].kind.is_remote());
}

#[test]
fn kinds_that_need_no_table_are_defined_by_a_pool() {
    let pool = |worker: &str| format!("[[pools]]\nname = 'a'\nworker = '{worker}'\n");
    let config = read(&pool("command")).expect("it loads");
    assert!(
        matches!(&config.workers["command"].kind, WorkerKind::Command(command) if command.allow == Allow::Any)
    );
    let buddy = format!(
        "{}[session_buddy]\nurl = 'http://a'\n",
        pool("session-buddy")
    );
    assert!(read(&buddy).is_ok());
    let problem = refused(&pool("session-buddy"));
    assert!(
        problem
            .message
            .contains("`workers.session-buddy.server` is missing")
    );
    let problem = refused(&pool("mcp"));
    assert!(
        problem.message.contains("add a [workers.mcp] table"),
        "{problem:?}"
    );
}

#[test]
fn a_suggestion_is_near_or_there_is_none() {
    let problem = refused("[[pools]]\nname = 'a'\nworker = 'ctrlaltdel'\n");
    assert!(!problem.message.contains("did you mean"), "{problem:?}");
    let problem = refused("[[pools]]\nname = 'a'\nworker = 'cluade'\n");
    assert!(
        problem.message.contains("did you mean \"claude\""),
        "{problem:?}"
    );
}
