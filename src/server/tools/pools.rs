//! The tools about pools.

use super::{About, Effect, ToolSpec};
use crate::api::Tools;

pub(super) fn tools() -> Vec<ToolSpec> {
    vec![
        ToolSpec::new(
            About {
                name: "list_pools",
                title: "List the pools of workers",
                description: "Lists the pools with their slots, what runs and waits in them, their load and health. A \
                    pool that does not answer is a row that says so.",
                search_hint: "pools, workers, free slots, load, health, queue",
                effect: Effect::Reads,
            },
            <dyn Tools>::list_pools,
        ),
        ToolSpec::new(
            About {
                name: "set_pool",
                title: "Make, resize or drain a pool",
                description: "Makes a pool of a worker kind that the config defines, or changes a pool's size, labels or \
                    draining. It lasts as long as this server; for good, write it into the config.",
                search_hint: "create, resize, scale, label or drain a pool of workers",
                effect: Effect::Sets,
            },
            <dyn Tools>::set_pool,
        ),
        ToolSpec::new(
            About {
                name: "close_pool",
                title: "Close a pool",
                description: "Closes a pool: it takes nothing new, what runs may end within the grace and is stopped \
                    after it. It lasts as long as this server.",
                search_hint: "close or remove a pool of workers",
                effect: Effect::Destroys,
            },
            <dyn Tools>::close_pool,
        ),
    ]
}
