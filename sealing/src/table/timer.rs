//! [`Timer`]: the clock of a store, and its pauses.

use std::fmt;
use std::time::Duration;

use futures_channel::oneshot;
use keystead_core::async_trait;

use super::threads;

/// The clock of a [`SealedStore`](super::SealedStore), replaced in tests.
#[async_trait]
pub trait Timer: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since a fixed moment. It never goes back, and it keeps counting while the
    /// system is suspended, because a lease must also run out during a suspension.
    fn now(&self) -> Duration;

    /// Waits for at least this long.
    async fn sleep(&self, time: Duration);
}

/// The clock of the system. Needs no runtime: each pause has a thread of its own. Only rotations
/// pause, and the opening of a store that another process is creating.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemTimer;

#[async_trait]
impl Timer for SystemTimer {
    fn now(&self) -> Duration {
        now()
    }

    async fn sleep(&self, time: Duration) {
        let end = now() + time;
        while let Some(left) = end.checked_sub(now()).filter(|left| !left.is_zero()) {
            let (wake, woken) = oneshot::channel();
            let wait = move || {
                std::thread::sleep(left);
                let _ = wake.send(());
            };
            if threads::spawn(wait).is_err() {
                // If no thread can be started, the caller's own thread has to wait.
                std::thread::sleep(left);
                return;
            }
            // Fails only if the thread was killed; the loop looks at the clock again.
            let _ = woken.await;
        }
    }
}

/// CLOCK_BOOTTIME (clock_gettime(2)) counts the time in which the system is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// On macOS and the BSDs CLOCK_MONOTONIC counts the time in which the system is suspended.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// On Windows the performance counter behind `Instant` goes on in a suspended system.
#[cfg(not(unix))]
fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
