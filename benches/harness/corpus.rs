//! Memories to store and find, the same in each run.

use mahavishnu::model::{MemoryKind, NewMemory, PoolName};

/// Returns the memory `number`: 25 words `w0` to `w4999`, drawn alike, after `build`, which stands in all of them.
pub(crate) fn memory(pool: &PoolName, number: usize) -> NewMemory {
    let mut text = String::from("build");
    let mut state = number as u64 + 1;
    for _ in 0..25 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!(" w{}", (state >> 33) % 5_000));
    }
    NewMemory {
        source_id: Some(number.to_string()),
        ..NewMemory::new(MemoryKind::Outcome, text, pool.clone(), "bench")
    }
}
