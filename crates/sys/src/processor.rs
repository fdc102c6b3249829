//! On which processor a thread runs.

use std::fs::File;
use std::io::{self, Read};

use rustix::thread::CpuSet;

/// `/proc/PID/stat` is not longer.
const STAT_BYTES_MAX: u64 = 4096;
/// Its field `processor`, counted from the one after the name in parentheses (`proc_pid_stat(5)`).
const PROCESSOR_AT: usize = 36;

/// On which one a thread ran last, by its number; none: there is no such thread any more, or it is not seen from here.
pub fn of_thread(pid: u32) -> Option<usize> {
    let mut line = String::new();
    let file = File::open(format!("/proc/{pid}/stat")).ok()?;
    file.take(STAT_BYTES_MAX).read_to_string(&mut line).ok()?;
    in_line(&line)
}

/// The name may have any characters, parentheses too.
fn in_line(line: &str) -> Option<usize> {
    let (_, fields) = line.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(PROCESSOR_AT)?.parse().ok()
}

/// Where the calling thread may run.
#[derive(Debug)]
pub struct Allowed(CpuSet);

impl Allowed {
    /// As it is now.
    ///
    /// # Errors
    /// What `sched_getaffinity(2)` says.
    pub fn now() -> io::Result<Self> {
        Ok(Self(rustix::thread::sched_getaffinity(None)?))
    }

    /// Has the calling thread run on this processor alone, if it is one of these; none: on any of these.
    ///
    /// # Errors
    /// What `sched_setaffinity(2)` says.
    pub fn only(&self, processor: Option<usize>) -> io::Result<()> {
        let only = |processor| {
            let mut one = CpuSet::new();
            one.set(processor);
            one
        };
        let is_one = |processor: &usize| *processor < CpuSet::MAX_CPU && self.0.is_set(*processor);
        let wanted = processor.filter(is_one).map_or(self.0, only);
        Ok(rustix::thread::sched_setaffinity(None, &wanted)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_thread_runs_where_it_is_to_and_that_is_seen() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let allowed = Allowed::now().unwrap();
                let me = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
                for processor in (0..CpuSet::MAX_CPU).filter(|one| allowed.0.is_set(*one)) {
                    allowed.only(Some(processor)).unwrap();
                    assert_eq!(of_thread(me), Some(processor));
                }
                allowed.only(Some(CpuSet::MAX_CPU)).unwrap();
                allowed.only(None).unwrap();
                assert_eq!(Allowed::now().unwrap().0, allowed.0);
            });
        });
        assert_eq!(of_thread(u32::MAX), None);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_is_none_of_the_fields() {
        let fields: Vec<String> = (0..50).map(|n: u32| n.to_string()).collect();
        let line = format!("7 (a b) c ) {}", fields.join(" "));
        assert_eq!(in_line(&line), Some(36));
        assert_eq!(in_line("7 (a) S 1 2"), None);
        assert_eq!(in_line(""), None);
    }
}
