//! Asking again when the gateway is only briefly away.

use std::time::Duration;

use lap_core::id::Entropy;
use lap_harness::TurnFailure;

use super::CallFailure;

/// The waits between the tries; one more failure ends the turn.
const WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// A gateway that asks for a longer pause is treated as failed.
const LONGEST_WISH: Duration = Duration::from_secs(30);

/// Counts the tries of one call.
#[derive(Debug, Default)]
pub(in crate::builtin) struct Retrying {
    failures: usize,
}

impl Retrying {
    /// How long to wait before the next try.
    ///
    /// # Errors
    /// The failure, when there should be none.
    pub(in crate::builtin) fn after(
        &mut self,
        failed: CallFailure,
        entropy: &dyn Entropy,
    ) -> Result<(Duration, TurnFailure), TurnFailure> {
        let wait = WAITS.get(self.failures).copied().filter(|_| failed.retryable);
        let wish = failed.retry_after.unwrap_or_default();
        let Some(wait) = wait.filter(|_| wish <= LONGEST_WISH) else {
            return Err(failed.failure);
        };
        self.failures += 1;
        let mut random = [0];
        entropy.fill(&mut random);
        // Up to a quarter more, so that many sandboxes do not come back in step.
        let wait = wait + wait * u32::from(random[0]) / 1024;
        Ok((wait.max(wish), failed.failure))
    }

    /// How many tries have failed.
    pub(in crate::builtin) const fn failures(&self) -> usize {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lap_core::id::SeededEntropy;

    fn failed(retryable: bool, retry_after: Option<u64>) -> CallFailure {
        let failure = TurnFailure {
            message: "x".to_owned(),
            status: None,
        };
        CallFailure {
            failure,
            retryable,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_tries_are_bounded_and_grow() {
        let entropy = SeededEntropy::new(1);
        let mut retrying = Retrying::default();
        let waits: Vec<_> =
            std::iter::from_fn(|| retrying.after(failed(true, None), &entropy).ok()).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_gateways_wish_counts_within_reason() {
        let entropy = SeededEntropy::new(1);
        let wait = |failed| {
            Retrying::default()
                .after(failed, &entropy)
                .ok()
                .map(|(wait, _)| wait)
        };
        assert_eq!(wait(failed(true, Some(5))), Some(Duration::from_secs(5)));
        assert_eq!(wait(failed(true, Some(3600))), None);
        assert_eq!(wait(failed(false, None)), None);
    }
}
