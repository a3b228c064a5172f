/// What a test may want of the service. The default: real time, and nothing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TestHooks {
    /// Shortens the engine's waits; 1 is real time.
    pub time_scale: f64,
    /// Ends the process at a commit of the inbox, as a crash would.
    pub die_at: Option<DieAt>,
    /// Lets a loop hang.
    pub hang_at: Option<HangAt>,
}

impl Default for TestHooks {
    fn default() -> Self {
        Self {
            time_scale: 1.0,
            die_at: None,
            hang_at: None,
        }
    }
}

/// A commit of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DieAt {
    /// Counted from 1: commits that store, claim, checkpoint or settle entries.
    pub commit: u64,
    /// `false`: just before it. `true`: just after, before any command is answered.
    pub committed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangAt {
    Writer,
    Engine,
}
