//! The environment that programs get: an allow list of the server's own, so that secrets and the markers by which agent
//! programs recognise a nested session (`CLAUDECODE` and the like) are not handed on.

use super::program::Environment;
use super::search_path::SearchPath;
use parking_lot::Mutex;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// How much of the server's environment a program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What every program needs, and what leads to agents, proxies and services of this user: for programs that a person
    /// could have started as well.
    User,
    /// Only what every program needs: for agent programs, which get the rest by `env_pass`.
    Fenced,
}

/// What every program gets.
const BASIC: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "GOPATH",
    "GOROOT",
    "JAVA_HOME",
    "NVM_DIR",
    "VOLTA_HOME",
    "PYENV_ROOT",
    "RBENV_ROOT",
    "ASDF_DIR",
    "ASDF_DATA_DIR",
    "MISE_DATA_DIR",
    "SDKMAN_DIR",
    "PNPM_HOME",
    "BUN_INSTALL",
    "DENO_DIR",
    "DOTNET_ROOT",
    "ANDROID_HOME",
    "ANDROID_SDK_ROOT",
    "GRADLE_USER_HOME",
];
const BASIC_PREFIXES: &[&str] = &["LC_", "XDG_"];
/// What programs get that are not fenced.
const USER: &[&str] = &[
    // ssh, gpg, keyrings
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GPG_TTY",
    "GPG_AGENT_INFO",
    "GNUPGHOME",
    "DBUS_SESSION_BUS_ADDRESS",
    // certificates
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
    // containers, clusters, clouds: where they are, not what opens them
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "CONTAINER_HOST",
    "KUBECONFIG",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_CONFIG",
    "AZURE_CONFIG_DIR",
];
/// The same in capitals and in small letters: programs differ in which they read.
const USER_EITHER_CASE: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
/// The first of these that is set and not empty is the locale of characters.
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];
/// A UTF-8 locale that the system has without any being installed.
const UTF8: &str = if cfg!(target_os = "macos") {
    "en_US.UTF-8"
} else {
    "C.UTF-8"
};

/// Returns the environment for a program: of `parent` its PATH, what `reach` allows and what `pass` names, then `TERM=dumb`
/// and `NO_COLOR=1`, then `extra`; a later value replaces an earlier one. A UTF-8 locale is set where none is.
pub fn base_env(
    parent: impl IntoIterator<Item = (OsString, OsString)>,
    reach: Reach,
    pass: &[String],
    extra: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let parent = parent.into_iter();
    let mut env: Vec<_> = parent
        .filter(|(name, _)| {
            name.to_str()
                .is_some_and(|name| is_allowed(name, reach) || pass.iter().any(|it| it == name))
        })
        .collect();
    for (name, value) in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        set(&mut env, OsStr::new(name), OsStr::new(value));
    }
    for (name, value) in extra {
        set(&mut env, name, value);
    }
    let has_locale = LOCALE
        .iter()
        .any(|name| get(&env, name).is_some_and(|value| !value.is_empty()));
    if !has_locale {
        set(&mut env, OsStr::new("LANG"), OsStr::new(UTF8));
    }
    env
}

fn is_allowed(name: &str, reach: Reach) -> bool {
    let basic = name == "PATH"
        || BASIC.contains(&name)
        || BASIC_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let user = || {
        USER.contains(&name)
            || USER_EITHER_CASE
                .iter()
                .any(|known| name == *known || name == known.to_ascii_lowercase())
    };
    basic || (reach == Reach::User && user())
}

fn get<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    let found = env.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_os_str())
}

fn set(env: &mut Vec<(OsString, OsString)>, name: &OsStr, value: &OsStr) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, slot)) => slot.clone_from(&value.to_owned()),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}

/// The environment of one worker kind's programs. Its PATH is the search path as it is known at the time, unless the kind
/// sets one.
#[derive(Debug)]
pub struct ProgramEnv {
    vars: Vec<(OsString, OsString)>,
    search: SearchPath,
    own_path: Option<Arc<OsStr>>,
    /// The environment with the latest search path.
    latest: Mutex<Option<(Arc<OsStr>, Environment)>>,
}

impl ProgramEnv {
    /// Makes the environment of programs that reach as far as `reach` in `parent`, get what `pass` names and `extra` sets.
    pub fn new(
        parent: &[(OsString, OsString)],
        reach: Reach,
        pass: &[String],
        extra: &[(OsString, OsString)],
        search: SearchPath,
    ) -> Self {
        Self {
            vars: base_env(parent.iter().cloned(), reach, pass, extra),
            own_path: get(extra, "PATH").map(Arc::from),
            search,
            latest: Mutex::default(),
        }
    }

    /// Returns the PATH that programs get now.
    pub fn path(&self) -> Arc<OsStr> {
        let own = self.own_path.clone();
        own.unwrap_or_else(|| self.search.get())
    }

    /// Returns the PATH that programs get, after the login shell was asked for its own.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn whole_path(&self) -> Arc<OsStr> {
        match &self.own_path {
            Some(own) => Arc::clone(own),
            None => self.search.whole().await,
        }
    }

    /// Returns the environment that programs get now.
    pub fn get(&self) -> Environment {
        let path = self.path();
        let mut latest = self.latest.lock();
        if let Some((of, env)) = &*latest
            && *of == path
        {
            return Arc::clone(env);
        }
        let mut vars = self.vars.clone();
        set(&mut vars, OsStr::new("PATH"), &path);
        let env = Environment::from(vars);
        *latest = Some((path, Arc::clone(&env)));
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn the_environment_is_an_allow_list() {
        let parent = env(&[
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("XDG_RUNTIME_DIR", "/run"),
            ("TERM", "xterm"),
            ("CLAUDECODE", "1"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("API_KEY", "k"),
            ("SSH_AUTH_SOCK", "/agent"),
            ("https_proxy", "http://p"),
            ("HTTPS_PROXY", "http://P"),
        ]);
        let extra = env(&[("NO_COLOR", "0"), ("X", "y")]);
        let common = env(&[
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("XDG_RUNTIME_DIR", "/run"),
            ("API_KEY", "k"),
        ]);
        let last = env(&[("TERM", "dumb"), ("NO_COLOR", "0"), ("X", "y")]);
        let user = env(&[
            ("SSH_AUTH_SOCK", "/agent"),
            ("https_proxy", "http://p"),
            ("HTTPS_PROXY", "http://P"),
        ]);
        let got = |reach| base_env(parent.clone(), reach, &["API_KEY".into()], &extra);
        assert_eq!(got(Reach::Fenced), [common.clone(), last.clone()].concat());
        assert_eq!(got(Reach::User), [common, user, last].concat());
    }

    #[test]
    fn a_utf8_locale_is_set_where_none_is() {
        let lang = |parent: &[(&str, &str)]| {
            let env = base_env(env(parent), Reach::User, &[], &[]);
            get(&env, "LANG").map(OsStr::to_owned)
        };
        assert_eq!(lang(&[]), Some(UTF8.into()));
        assert_eq!(lang(&[("LANG", "")]), Some(UTF8.into()));
        assert_eq!(lang(&[("LANG", "de_DE.UTF-8")]), Some("de_DE.UTF-8".into()));
        assert_eq!(lang(&[("LC_ALL", "C")]), None);
    }
}
