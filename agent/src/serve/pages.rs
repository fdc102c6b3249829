//! Lists and records cut to what one message may hold. Pure.

use prost::Message;
use purge_proto::v1;

/// An answer that is no stream has at most this number of bytes, but for a single row that has more.
pub const ANSWER_BYTES_MAX: usize = 512 << 10;
/// An answer that is all sums, and whose rows are sorted by their weight.
pub const SUMS_BYTES_MAX: usize = 4 << 20;
/// A forecast: rows for every day of many subjects.
pub const FORECAST_BYTES_MAX: usize = 16 << 20;
/// Rows of a page of a list, unless the client asks for fewer.
const PAGE_ROWS_MAX: usize = 100;
/// Rows of a page of small ones.
const PAGE_HOLDS_MAX: usize = 10_000;
/// Owners of a plan that are told one by one, those with the most bytes first.
pub const OWNERS_MAX: usize = 5_000;
/// The same in a list of plans.
pub const OWNERS_IN_LIST_MAX: usize = 100;
/// Bytes of a run's failures that are told one by one; and in a list of runs.
const FAILURES_BYTES_MAX: usize = 256 << 10;
const FAILURES_IN_LIST_BYTES_MAX: usize = 16 << 10;
/// Owners whose files are kept alive, those with the most files first.
pub const TOUCHED_MAX: usize = 4_000;

/// How rows tell their ids, and whether one of an id comes no later than the row that a token names.
type Order<T> = (fn(&T) -> &str, fn(&str, &str) -> bool);

/// A page of `all` after the row that `token` names, and the next token.
fn page<T: Message>(
    all: Vec<T>,
    (size, size_max): (u32, usize),
    token: &str,
    (id, is_past): Order<T>,
) -> (Vec<T>, String) {
    let size = match size {
        0 => size_max,
        n => (n as usize).min(size_max),
    };
    let mut rest = all
        .into_iter()
        .skip_while(|item| !token.is_empty() && is_past(id(item), token))
        .peekable();
    let (mut rows, mut bytes): (Vec<T>, usize) = (Vec::new(), 0);
    while let Some(next) = rest.peek() {
        bytes = bytes.saturating_add(next.encoded_len());
        let is_full = rows.len() >= size || bytes > ANSWER_BYTES_MAX;
        if let Some(last) = rows.last().filter(|_| is_full) {
            let next = id(last).to_owned();
            return (rows, next);
        }
        rows.extend(rest.next());
    }
    (rows, String::new())
}

/// A page of plans, newest first.
pub fn plans(all: Vec<v1::Plan>, size: u32, token: &str) -> (Vec<v1::Plan>, String) {
    let order: Order<v1::Plan> = (|p| &p.plan_id, |id, token| id >= token);
    page(all, (size, PAGE_ROWS_MAX), token, order)
}

/// A page of runs, newest first.
pub fn runs(all: Vec<v1::Run>, size: u32, token: &str) -> (Vec<v1::Run>, String) {
    let all = all.into_iter().map(run_in_list).collect();
    let order: Order<v1::Run> = (|r| &r.run_id, |id, token| id >= token);
    page(all, (size, PAGE_ROWS_MAX), token, order)
}

/// A page of notices, newest first.
pub fn notices(all: Vec<v1::Notice>, size: u32, token: &str) -> (Vec<v1::Notice>, String) {
    let order: Order<v1::Notice> = (|n| &n.notice_id, |id, token| id >= token);
    page(all, (size, PAGE_ROWS_MAX), token, order)
}

/// A page of holds, in the order of their ids.
pub fn holds(mut all: Vec<v1::Hold>, size: u32, token: &str) -> (Vec<v1::Hold>, String) {
    all.sort_by(|a, b| a.hold_id.cmp(&b.hold_id));
    let order: Order<v1::Hold> = (|h| &h.hold_id, |id, token| id <= token);
    page(all, (size, PAGE_HOLDS_MAX), token, order)
}

/// A run by itself: how many failed is told in any case.
pub fn run(run: v1::Run) -> v1::Run {
    with_failures(run, FAILURES_BYTES_MAX)
}

/// A run among others.
pub fn run_in_list(run: v1::Run) -> v1::Run {
    with_failures(run, FAILURES_IN_LIST_BYTES_MAX)
}

fn with_failures(mut run: v1::Run, bytes_max: usize) -> v1::Run {
    run.failed = first(run.failed, bytes_max);
    run
}

/// What a restore came to.
pub fn restored(mut report: v1::RestoreReport) -> v1::RestoreReport {
    report.failed = first(report.failed, FAILURES_BYTES_MAX);
    report.items = first(report.items, FAILURES_BYTES_MAX);
    report
}

/// The first rows, as many as `bytes_max` bytes hold.
pub fn first<T: Message>(rows: impl IntoIterator<Item = T>, bytes_max: usize) -> Vec<T> {
    let mut bytes = 0usize;
    let fitting = rows.into_iter().take_while(|row| {
        bytes = bytes.saturating_add(row.encoded_len());
        bytes <= bytes_max
    });
    fitting.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(n: usize, reason: usize) -> v1::Hold {
        v1::Hold {
            hold_id: format!("h{n:05}"),
            reason: "x".repeat(reason),
            ..v1::Hold::default()
        }
    }

    #[test]
    fn pages_are_bounded_in_rows_and_bytes_and_leave_nothing_out() {
        for (rows, reason, size) in [(1000, 10, 7), (300, 100_000, 0), (3, 1 << 20, 0), (0, 1, 5)] {
            let all: Vec<v1::Hold> = (0..rows).rev().map(|n| hold(n, reason)).collect();
            let (mut token, mut seen, mut pages) = (String::new(), Vec::new(), 0);
            loop {
                let (page, next) = holds(all.clone(), size, &token);
                assert!(
                    page.len() <= 1
                        || page.iter().map(Message::encoded_len).sum::<usize>() <= ANSWER_BYTES_MAX
                );
                assert!(size == 0 || page.len() <= size as usize);
                seen.extend(page.into_iter().map(|h| h.hold_id));
                pages += 1;
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            let expected: Vec<String> = (0..rows).map(|n| hold(n, 0).hold_id).collect();
            assert_eq!(seen, expected);
            assert!(rows == 0 || pages > 1 || reason * rows < ANSWER_BYTES_MAX);
        }
    }

    #[test]
    fn newest_first_and_the_failures_of_a_run_are_few_in_a_list() {
        let failure = v1::Failure {
            path: vec![b'x'; 4000],
            error: "no".into(),
        };
        let run = |n: usize| v1::Run {
            run_id: format!("r{n:03}"),
            failed: vec![failure.clone(); 1000],
            failed_total: 1000,
            ..v1::Run::default()
        };
        let all: Vec<v1::Run> = (0..50).rev().map(run).collect();
        let (page, next) = runs(all.clone(), 0, "");
        assert!(
            page.iter().map(Message::encoded_len).sum::<usize>() <= ANSWER_BYTES_MAX
                && page[0].run_id == "r049"
        );
        let (again, _) = runs(all, 0, &next);
        assert!(again[0].run_id < page[page.len() - 1].run_id && again[0].failed_total == 1000);
        assert!(super::run(run(1)).encoded_len() < FAILURES_BYTES_MAX + 1000);
    }
}
