//! The tool that checks the rest.

use super::{About, Effect, ToolSpec};
use crate::api::Tools;

pub(super) fn tools() -> Vec<ToolSpec> {
    vec![ToolSpec::new(
        About {
            name: "check_health",
            title: "Check that everything works",
            description: "Checks the config, the store, the pools, the programs, the peers and the disk, and gives the next \
                step for each fault. `probe` also tries the workers or the peers out.",
            search_hint: "diagnose problems, self-check, why something does not work",
            effect: Effect::ReadsOutside,
        },
        <dyn Tools>::check_health,
    )]
}
