//! The progress bar of `mahavishnu call`, where stderr is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rmcp::ClientHandler;
use rmcp::RoleClient;
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProgressNotificationParam};
use rmcp::service::NotificationContext;
use std::time::Duration;

/// How often the spinner turns: often enough to look alive.
const TICK: Duration = Duration::from_millis(120);

/// The client that shows progress.
#[derive(Debug, Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Returns a bar for the call of `tool`; it is drawn only on a terminal.
    pub(super) fn of(tool: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(spinner());
        bar.set_prefix(tool.to_owned());
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Takes the bar off the screen.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl ClientHandler for Bar {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new(crate::server::CLI_CLIENT, env!("CARGO_PKG_VERSION")),
        )
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        if let Some(total) = progress.total {
            if self.0.length().is_none() {
                self.0.set_style(bar());
            }
            self.0.set_length(total as u64);
        }
        self.0.set_position(progress.progress as u64);
        if let Some(message) = progress.message {
            self.0.set_message(message);
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
        .expect("the template is well-formed")
}

fn bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} [{bar:30}] {pos}/{len} {wide_msg}")
        .expect("the template is well-formed")
        .progress_chars("=> ")
}
