//! The other MCP servers that this one uses, each connected once however many worker kinds name it.

use super::memory::PEER;
use crate::config::{Config, PeerConfig, SessionBuddyConfig};
use crate::error::{Fault, Problem};
use crate::mcp_client::{ClientSettings, Endpoint, Launcher, McpClient};
use crate::model::At;
use crate::session_buddy::{PeerError, SessionBuddy, TaskPool};
use crate::worker::kinds::Servers;
use crate::worker::remote::{Remote, end_of};
use crate::worker::{End, Events, Task};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// The longest time of a probe; its callers usually have a shorter deadline.
const PROBE: Duration = Duration::from_secs(60);

/// The clients of the other servers, by address.
pub(super) struct Peers {
    env: Vec<(OsString, OsString)>,
    launcher: Option<Launcher>,
    memory: Option<PeerConfig>,
    clients: HashMap<PeerConfig, McpClient>,
    buddies: HashMap<PeerConfig, Buddy>,
    /// The Session-Buddies that worker kinds hand their tasks to, by the kind's name.
    kinds: BTreeMap<String, PeerConfig>,
}

/// A Session-Buddy and the name by which its memories are known.
#[derive(Clone)]
struct Buddy {
    client: SessionBuddy,
    source: String,
}

impl Peers {
    /// Returns no servers yet; `env` is this server's own environment, `launcher` starts those that are children.
    pub(super) fn new(
        config: &Config,
        env: Vec<(OsString, OsString)>,
        launcher: Option<Launcher>,
    ) -> Self {
        Self {
            env,
            launcher,
            memory: config.session_buddy.clone(),
            clients: HashMap::new(),
            buddies: HashMap::new(),
            kinds: BTreeMap::new(),
        }
    }

    /// Returns the Session-Buddy that memories are forwarded to, where there is one.
    pub(super) fn memory(&mut self) -> Option<SessionBuddy> {
        let peer = self.memory.clone()?;
        Some(self.session_buddy(&peer).client)
    }

    /// Ends all connections at once, and the servers that were started as children, each within `grace`.
    pub(super) async fn close(&self, grace: Duration) {
        join_all(self.clients.values().map(|client| client.close(grace))).await;
    }

    /// Returns the Session-Buddy that the worker kind `kind` hands its tasks to, with the name by which its memories are
    /// known; none for other kinds.
    pub(super) fn of_kind(&self, kind: &str) -> Option<(SessionBuddy, String)> {
        let buddy = self.buddies.get(self.kinds.get(kind)?)?;
        Some((buddy.client.clone(), buddy.source.clone()))
    }

    fn session_buddy(&mut self, peer: &PeerConfig) -> Buddy {
        if let Some(known) = self.buddies.get(peer) {
            return known.clone();
        }
        // The peer caches queries longer than this process lives, so each process starts from another seed.
        let seed = At::now().unix_ms().unsigned_abs() ^ u64::from(std::process::id()) << 40;
        let buddy = Buddy {
            client: SessionBuddy::new(self.client(peer), seed),
            source: self.label(peer),
        };
        self.buddies.insert(peer.clone(), buddy.clone());
        buddy
    }

    /// Returns a server's name for messages: the memory server's fixed name, else its address without credentials and
    /// query.
    fn label(&self, peer: &PeerConfig) -> String {
        match peer {
            peer if self.memory.as_ref() == Some(peer) => PEER.to_owned(),
            PeerConfig::Http { url, .. } => {
                let place = url.split(['?', '#']).next().unwrap_or_default();
                match place.split_once("://").and_then(|(scheme, rest)| {
                    let (_, host) = rest.split_once('@')?;
                    Some(format!("{scheme}://{host}"))
                }) {
                    Some(without_user) => without_user,
                    None => place.to_owned(),
                }
            }
            PeerConfig::Stdio { command, .. } => command.first().cloned().unwrap_or_default(),
        }
    }
}

impl Servers for Peers {
    type Buddy = BuddyTasks;

    fn client(&mut self, server: &PeerConfig) -> McpClient {
        if let Some(known) = self.clients.get(server) {
            return known.clone();
        }
        let settings = ClientSettings {
            launcher: self.launcher.clone(),
            ..ClientSettings::new(self.label(server))
        };
        let client = McpClient::new(Endpoint::of(server, &self.env), settings);
        self.clients.insert(server.clone(), client.clone());
        client
    }

    fn buddy(&mut self, name: &str, config: &SessionBuddyConfig) -> BuddyTasks {
        let server = config.server.clone().or_else(|| self.memory.clone());
        let server = server.expect("a checked config names a server for every session-buddy kind");
        let client = self.session_buddy(&server).client.client().clone();
        self.kinds.insert(name.to_owned(), server);
        BuddyTasks(TaskPool::new(client, name))
    }
}

/// Runs tasks in a pool inside a Session-Buddy.
pub(super) struct BuddyTasks(TaskPool);

impl Remote for BuddyTasks {
    fn is_local(&self) -> bool {
        false
    }

    fn perform<'a>(
        &'a self,
        _: &'a Task,
        prompt: &'a str,
        deadline: Instant,
        _: Events,
    ) -> BoxFuture<'a, (End, String)> {
        async move {
            if let Err(error) = self.0.ready(deadline).await {
                let end = match error {
                    PeerError::Down(error) | PeerError::Unclear(error) => end_of(&error),
                    other => End::NotStarted(other.problem()),
                };
                return (end, String::new());
            }
            match self.0.execute(prompt, deadline).await {
                Ok(output) => (End::Succeeded, output),
                Err(PeerError::Down(error) | PeerError::Unclear(error)) => {
                    (end_of(&error), String::new())
                }
                Err(error) => (End::Failed(error.problem()), String::new()),
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        async {
            let looked = self.0.look(Instant::now() + PROBE).await;
            looked.map_err(|error| error.problem())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn peers() -> Peers {
        let config = Config::load(&Sources {
            env: Default::default(),
            flags: Default::default(),
            default_file: None,
            default_state_dir: "/s".into(),
            start_dir: "/d".into(),
            home: None,
            cores: std::num::NonZeroUsize::MIN,
            path: OsString::new(),
        });
        let mut config = config.expect("the defaults are good");
        config.session_buddy = Some(http("http://127.0.0.1:1/mcp"));
        Peers::new(&config, Vec::new(), None)
    }

    fn http(url: &str) -> PeerConfig {
        PeerConfig::Http {
            url: url.to_owned(),
            headers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_label_names_the_place_without_what_may_be_secret() {
        let peers = peers();
        for (url, label) in [
            ("http://127.0.0.1:1/mcp", "session_buddy"),
            ("http://127.0.0.1:2/mcp", "http://127.0.0.1:2/mcp"),
            ("https://me:pass@host/mcp?key=k#f", "https://host/mcp"),
        ] {
            assert_eq!(peers.label(&http(url)), label);
        }
    }

    #[test]
    fn a_server_is_connected_once_however_many_name_it() {
        let mut peers = peers();
        for url in ["http://127.0.0.1:1/mcp", "http://127.0.0.1:2/mcp"] {
            peers.client(&http(url));
            peers.client(&http(url));
        }
        peers.buddy("a", &SessionBuddyConfig { server: None });
        peers.memory();
        assert_eq!((peers.clients.len(), peers.buddies.len()), (2, 1));
    }
}
