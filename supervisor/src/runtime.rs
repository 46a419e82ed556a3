//! The threads that a supervisor runs on, and how it leaves them.

use std::{future::Future, io, time::Duration};

use tokio::runtime::Builder;

/// How long work on threads of its own is waited for at the end. What is in the middle of writing a file needs milliseconds;
/// what needs longer hangs. It counts against the lease, which nobody renews meanwhile.
const LEFT_AFTER: Duration = Duration::from_millis(500);

/// Runs `work` to its end, and goes when that has come.
///
/// A thread that looks at a file on a storage that hangs cannot be stopped. Whoever waited for it would stand still for as long as
/// the storage does, on a restart or an upgrade as well, and the lease would run out meanwhile. So it is left behind, and ends
/// with the process. Whatever is written here is written so that it is whole after a crash.
///
/// # Errors
/// There are no threads to be had.
pub fn to_its_end<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(LEFT_AFTER);
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_storage_that_hangs_keeps_no_supervisor_from_ending() {
        let (hanging, hangs) = mpsc::channel::<()>();
        let (tell, told) = tokio::sync::oneshot::channel();
        let began = Instant::now();
        let ended = to_its_end(async move {
            let _left_behind = tokio::task::spawn_blocking(move || {
                tell.send(()).unwrap();
                hangs.recv_timeout(2 * LIMIT).is_ok()
            });
            told.await.unwrap();
            "ended"
        });
        assert_eq!(ended.unwrap(), "ended");
        assert!(began.elapsed() < LIMIT, "it waited for the storage");
        drop(hanging);
    }
}
