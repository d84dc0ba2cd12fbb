//! A measured distribution and how it is printed.

use std::time::Duration;

/// Times of one thing, in the order they were taken.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    times: Vec<Duration>,
}

impl Figure {
    /// Adds one time.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// The time below which this share (0 to 1) of all times lies.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the product is a small index"
        )]
        let index = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
        sorted.get(index).copied().unwrap_or_default()
    }

    /// One row of a table: name, number, p50, p95, in milliseconds.
    pub fn print(&self, name: &str) {
        let millis = |share| self.quantile(share).as_secs_f64() * 1000.0;
        println!(
            "| {name} | {} | {:.2} | {:.2} |",
            self.times.len(),
            millis(0.5),
            millis(0.95)
        );
    }
}
