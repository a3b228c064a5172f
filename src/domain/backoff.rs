use std::time::Duration;

/// A pause that doubles from `first` up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// The pause after the `n`-th attempt (from 0).
    #[must_use]
    pub fn after(self, n: u32) -> Duration {
        self.first
            .saturating_mul(2_u32.saturating_pow(n.min(31)))
            .min(self.longest)
    }

    /// As [`Backoff::after`], with up to a quarter more by `jitter` (0 to 1), and never shorter than the peer asked for.
    #[must_use]
    pub fn with_jitter(self, n: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        let pause = self.after(n).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
        pause.max(asked.unwrap_or_default())
    }
}
