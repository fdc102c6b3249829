//! The bound of the unit's memory, and what the index needs of it.
//!
//! The unit's `MemoryHigh=` and `MemoryMax=` are shares of the host's memory, because a unit does not know how many files there will be.
//! What the index needs is known here, so the bounds that fit it are named here.

use purge_proto::units::format_size;
use purge_sys::memory;

use super::Finding;

/// Measured (`bench/run growth`): 108 MiB and 45 bytes a file at ten million. Plans, answers and scans take as much again.
const BASE_BYTES: u64 = 256 << 20;
const ENTRY_BYTES: u64 = 100;

/// What the agent needs for this number of files and directories, in whole MiB.
fn needed(entries: u64) -> u64 {
    let bytes = entries.saturating_mul(ENTRY_BYTES).saturating_add(BASE_BYTES);
    bytes.div_ceil(1 << 20).saturating_mul(1 << 20)
}

/// Looks at the control group that the agent is in.
pub(super) fn examine(entries: u64) -> Finding {
    let bounds = memory::group_bounds();
    judge(entries, bounds.high, bounds.max)
}

fn judge(entries: u64, high: Option<u64>, max: Option<u64>) -> Finding {
    let need = needed(entries);
    let mib = |bytes: u64| bytes >> 20;
    let lines = format!(
        "systemctl edit purge-agent: [Service] MemoryHigh={}M MemoryMax={}M",
        mib(need.saturating_mul(2)),
        mib(need.saturating_mul(3)),
    );
    let Some(max) = max else {
        return Finding::note(
            "memory",
            format!("no bound; the index needs about {}", format_size(need)),
            format!("without a bound other processes are killed for the agent's memory; {lines}"),
        );
    };
    let found = format!(
        "at most {}; the index needs about {}",
        format_size(high.unwrap_or(max).min(max)),
        format_size(need)
    );
    match need > high.unwrap_or(max).min(max) {
        true => Finding::bad(
            "memory",
            found,
            format!("add memory, or raise the bound; {lines}"),
        ),
        false => Finding::good("memory", found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_bound_is_judged_by_the_index() {
        const GIB: u64 = 1 << 30;
        let verdict = |entries, high, max| judge(entries, high, max).verdict;
        assert_eq!(verdict(1000, None, None), Verdict::Note);
        assert_eq!(verdict(1000, None, Some(GIB)), Verdict::Good);
        assert_eq!(verdict(10_000_000, Some(GIB), Some(2 * GIB)), Verdict::Bad);
        assert_eq!(verdict(10_000_000, Some(2 * GIB), Some(3 * GIB)), Verdict::Good);
        assert_eq!(verdict(u64::MAX, None, Some(GIB)), Verdict::Bad);
        let told = judge(10_000_000, None, Some(GIB));
        assert!(
            told.cure.contains("MemoryHigh=2420M MemoryMax=3630M"),
            "{}",
            told.cure
        );
    }
}
