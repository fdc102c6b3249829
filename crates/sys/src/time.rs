//! Clocks (`clock_gettime(2)`) and which boot this is (`/proc/sys/kernel/random/boot_id`, `random(4)`).

use std::time::SystemTime;

use purge_model::Seconds;

/// A boot of the host; all zero where `/proc` does not tell.
pub type BootId = [u8; 16];

/// Nanoseconds since the host booted, with the time it was suspended: no step of the wall clock moves it.
pub fn since_boot() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// Nanoseconds since 1970 as the wall clock has it.
pub fn wall() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The wall clock's present moment, in whole seconds.
pub fn wall_seconds() -> Seconds {
    Seconds::from_system(SystemTime::now())
}

/// Which boot this is.
pub fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut digits = text.chars().filter_map(|c| c.to_digit(16));
    std::array::from_fn(|_| {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        u8::try_from(high << 4 | low).unwrap_or(0)
    })
}

/// The processor time that the calling thread has taken (CLOCK_THREAD_CPUTIME_ID).
pub fn of_this_thread() -> std::time::Duration {
    processor_time(rustix::time::ClockId::ThreadCPUTime)
}

/// The processor time that all threads of this process have taken (CLOCK_PROCESS_CPUTIME_ID).
pub fn of_this_process() -> std::time::Duration {
    processor_time(rustix::time::ClockId::ProcessCPUTime)
}

fn processor_time(clock: rustix::time::ClockId) -> std::time::Duration {
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    std::time::Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
