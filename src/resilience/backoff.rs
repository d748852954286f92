//! Growing, jittered delays between tries.

use std::time::Duration;

/// An endless iterator of delays that grow by doubling up to a ceiling, each drawn from the upper half of its step.
///
/// "Equal jitter" of Brooker, *Exponential Backoff and Jitter* (2015): half of each step is fixed, so that a retry never
/// comes at once, and half is random, so that many callers that failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    step: Duration,
    first: Duration,
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// Returns delays that begin at `first` and never exceed `ceiling`, jittered by a sequence that `seed` determines.
    pub fn new(first: Duration, ceiling: Duration, seed: u64) -> Self {
        Self {
            step: first.min(ceiling),
            first: first.min(ceiling),
            ceiling,
            random: seed,
        }
    }

    /// Begins again with the first delay; the jitter goes on.
    pub fn reset(&mut self) {
        self.step = self.first;
    }

    /// Returns the next delay.
    pub fn next_delay(&mut self) -> Duration {
        let half = self.step / 2;
        let delay = half + half.mul_f64(unit(split_mix(&mut self.random)));
        self.step = (self.step * 2).min(self.ceiling);
        delay
    }

    /// Returns a delay for the `attempt`th try (from 1) of one of many things that are retried apart from each other.
    pub fn delay_of(&mut self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.step = self.first.saturating_mul(1 << doublings).min(self.ceiling);
        self.next_delay()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}

/// Steps `SplitMix64` (Steele, Lea and Flood, 2014): all the randomness that jitter needs, without a dependency.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps 64 random bits to `[0, 1)`.
fn unit(bits: u64) -> f64 {
    const MANTISSA_BITS: u32 = 53;
    (bits >> (64 - MANTISSA_BITS)) as f64 / (1_u64 << MANTISSA_BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(5);

    #[test]
    fn delays_grow_within_their_steps_and_stay_under_the_ceiling() {
        let delays: Vec<_> = Backoff::new(FIRST, CEILING, 7).take(12).collect();
        let mut step = FIRST;
        for delay in &delays {
            assert!(
                *delay >= step / 2 && *delay <= step,
                "{delay:?} in {step:?}"
            );
            step = (step * 2).min(CEILING);
        }
        assert!(delays.iter().skip(8).all(|delay| *delay <= CEILING));
    }

    #[test]
    fn the_seed_decides_and_two_seeds_differ() {
        let run = |seed| {
            Backoff::new(FIRST, CEILING, seed)
                .take(6)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_reset_begins_again_and_an_attempt_picks_its_own_step() {
        let mut backoff = Backoff::new(FIRST, CEILING, 3);
        backoff.by_ref().take(5).for_each(drop);
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
        assert!(backoff.delay_of(3) >= FIRST * 2);
        assert!(backoff.delay_of(u32::MAX) <= CEILING);
    }
}
