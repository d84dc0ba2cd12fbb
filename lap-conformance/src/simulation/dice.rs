use std::sync::Arc;
use std::time::Duration;

use lap_core::id::{Entropy as _, SeededEntropy};

/// Reproducible choices. Clones draw from one sequence.
#[derive(Debug, Clone)]
pub struct Dice {
    entropy: Arc<SeededEntropy>,
}

impl Dice {
    /// The choices of this seed, apart from those of other purposes.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            entropy: Arc::new(SeededEntropy::new(mixed)),
        }
    }

    /// 0 to `limit` - 1; 0 when there is no limit.
    pub fn below(&self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        // The bias is of no importance here.
        u64::from_le_bytes(bytes) % limit.max(1)
    }

    /// True this many times of a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }

    /// Up to this long, short times more often.
    pub fn up_to(&self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let limit = self.below(longest + 1);
        Duration::from_millis(self.below(limit + 1))
    }
}
