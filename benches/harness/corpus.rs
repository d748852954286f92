//! Memories to store and find, the same in each run: short ones, and such as workers leave.

use mahavishnu::model::{At, MemoryKind, NewMemory, PoolName};

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

/// Different words. Each is two or three syllables, so that beginnings are shared.
const WORDS: usize = 50_000;
/// Flattens the law's head, so that the first word comes 1.17 times in a hundred: in 61% of texts of 80 words.
const HEAD: f64 = 9.0;
const SYLLABLES: usize = 100;

/// A stream of numbers of its own for each memory (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Returns the word of rank `rank`, 0 being the most frequent.
pub(crate) fn word(rank: usize) -> String {
    let mut word = String::new();
    let mut left = rank;
    for place in 0.. {
        let syllable = left % SYLLABLES;
        word.push(char::from(b"bcdfghjklmnprstvwxyz"[syllable / 5]));
        word.push(char::from(b"aeiou"[syllable % 5]));
        left /= SYLLABLES;
        if place > 0 && left == 0 {
            break;
        }
    }
    word
}

/// What memories as workers leave them are drawn from: about 80 words each, by Zipf and Mandelbrot's law, the most
/// frequent word in 61% of them.
pub(crate) struct Corpus {
    words: Vec<String>,
    /// How likely a word is one of those up to each rank.
    up_to: Vec<f64>,
}

impl Corpus {
    /// Makes the vocabulary.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    pub(crate) fn new() -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (0..WORDS)
            .map(|rank| {
                sum += 1.0 / (rank as f64 + 1.0 + HEAD);
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|chance| *chance /= sum);
        Self {
            words: (0..WORDS).map(word).collect(),
            up_to,
        }
    }

    /// Returns memory `n`: one in 1,000 is a lesson, one in 10,000 of the pool `small`, and half of the others have
    /// `passed`, half `failed`, both in one of 5,000.
    pub(crate) fn memory(&self, n: usize) -> NewMemory {
        let mut random = Random(n as u64);
        let length = 40 + random.next() % 81;
        let mut text = String::with_capacity(500);
        for _ in 0..length {
            let chance = random.unit();
            let rank = self.up_to.partition_point(|&up_to| up_to < chance);
            text.push_str(&self.words[rank.min(WORDS - 1)]);
            text.push(' ');
        }
        text.push_str(match n {
            n if n % 5_000 == 7 => "passed failed",
            n if n.is_multiple_of(2) => "passed",
            _ => "failed",
        });
        let pool = if n % 10_000 == 11 {
            "small"
        } else {
            ["local", "codex", "claude"][n % 3]
        };
        let kind = if n % 1_000 == 5 {
            MemoryKind::Lesson
        } else {
            MemoryKind::Outcome
        };
        let pool: PoolName = pool.parse().expect("a name");
        NewMemory {
            source_id: Some(n.to_string()),
            repo: n
                .is_multiple_of(4)
                .then(|| format!("/home/user/code/r{}", n / 4 % 200)),
            tags: if n.is_multiple_of(50) {
                vec!["flaky".to_owned()]
            } else {
                Vec::new()
            },
            created_at: At::from_unix_ms(
                1_700_000_000_000 + 1_000 * i64::try_from(n).expect("small"),
            ),
            ..NewMemory::new(kind, text, pool, "worker")
        }
    }
}
