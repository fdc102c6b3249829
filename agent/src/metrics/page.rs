//! A page in Prometheus' text format, version 0.0.4.
//!
//! Written by hand: the `prometheus-client` crate writes OpenMetrics only, with other names for counters and an end mark, and the contract
//! promises the older format; and what is shown here is read from the host when it is asked for, so there is no registry to keep.

use std::fmt::{Display, Write};

use crate::work::phases::{BOUNDS, Histogram};

#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    /// A metric without labels.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.text, "purge_agent_{name} {value}");
    }

    /// A metric with a row for each set of labels.
    pub(super) fn metric<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in rows {
            let _ = writeln!(self.text, "purge_agent_{name}{{{labels}}} {value}");
        }
    }

    /// Durations: a row of labels and what was counted for each histogram.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (String, Histogram)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, of) in rows {
            let bounds = BOUNDS.iter().map(ToString::to_string);
            let buckets = bounds.zip(of.within).chain([("+Inf".to_owned(), of.count)]);
            for (bound, count) in buckets {
                let _ = writeln!(
                    self.text,
                    "purge_agent_{name}_bucket{{{labels},le=\"{bound}\"}} {count}"
                );
            }
            let _ = writeln!(self.text, "purge_agent_{name}_sum{{{labels}}} {}", of.sum);
            let _ = writeln!(self.text, "purge_agent_{name}_count{{{labels}}} {}", of.count);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.text,
            "# HELP purge_agent_{name} {help}\n# TYPE purge_agent_{name} {kind}"
        );
    }
}
