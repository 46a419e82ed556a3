//! How much one connection is listened to.
//!
//! At the other end of some is a guest, which may talk without end. Whoever reads that must not keep a processor of the host busy
//! with it: what is over is left unread, and then waits in QEMU and in the guest.

use std::time::Duration;

use tokio::time::Instant;

/// What may be said in a second, in bytes, over a long time: an answer as long as any may be in each, and as much again.
const BYTES_A_SECOND: u64 = 2 << 20;

/// By how much that may be exceeded for a while: by four answers as long as any may be.
const BYTES_AT_ONCE: u64 = 4 << 20;

/// What a line costs beside its bytes, in bytes: to be looked at, however short it is. Thousands in a second are enough for
/// every probe of a guest, and for what QEMU tells of it.
pub const LINE_COST: usize = 256;

/// What one connection has used of it.
#[derive(Debug)]
pub struct Allowance {
    /// How long it takes to make good for what was said.
    owed: Duration,
    at: Instant,
}

impl Allowance {
    /// All of it.
    pub fn whole(now: Instant) -> Self {
        Self { owed: Duration::ZERO, at: now }
    }

    /// Notes that so much was said.
    pub fn use_up(&mut self, bytes: usize, now: Instant) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.owed = self.owed_at(now).saturating_add(time_for(bytes));
        self.at = now;
    }

    /// After how long there is some again; zero where there is.
    pub fn again_after(&self, now: Instant) -> Duration {
        self.owed_at(now).saturating_sub(time_for(BYTES_AT_ONCE))
    }

    fn owed_at(&self, now: Instant) -> Duration {
        self.owed.saturating_sub(now.saturating_duration_since(self.at))
    }
}

fn time_for(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / BYTES_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_may_be_said_at_once_and_then_only_so_much_in_a_second() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let megabytes = |count: usize| count << 20;
        let mut allowance = Allowance::whole(start);
        allowance.use_up(megabytes(4), start);
        assert_eq!(allowance.again_after(start), Duration::ZERO);
        allowance.use_up(megabytes(1), start);
        assert_eq!(allowance.again_after(start), Duration::from_millis(500));
        assert_eq!(allowance.again_after(at(1)), Duration::ZERO);
        allowance.use_up(megabytes(3), at(1));
        assert_eq!(allowance.again_after(at(1)), Duration::from_secs(1));
        // Whoever was silent for an hour may not say more at once for that.
        allowance.use_up(megabytes(5), at(3_600));
        assert_eq!(allowance.again_after(at(3_600)), Duration::from_millis(500));
    }
}
