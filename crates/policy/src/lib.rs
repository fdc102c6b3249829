//! What may go, and why. Pure: (index, rules, now) -> [`evaluate::Evaluation`]; no clock, no file system, no async.
//!
//! - [`rule`]     what an operator says of what may be deleted (values)
//! - [`allowance`] how much there may be: quotas and watermarks (values); [`whom`] an override means
//! - [`last_use`] a file's last use from the clocks a rule believes
//! - [`blind`]    what rules may ask of a volume whose collector does not see everything
//! - [`scope`]    globs, owners and sizes of a rule
//! - [`rooted`]   project ids that root gave, and those that owners gave to their own files
//! - [`blocks`]   what files count for where copies share blocks
//! - [`sample`]   a few files of each owner that stand for all
//! - [`schedule`] when a rule's plans are made
//! - [`circumstances`] what besides index and rules decides; [`pick`] one candidate; [`evaluation`] all of them (values)
//! - `tables`     tables over directories that each part of an evaluation needs
//! - [`evaluate`] files, whole directories and empty directories against the rules
//! - [`apart`]    files that are too many to be kept together
//! - `files`      file rules: one pass over the clock column
//! - [`limits`]   in which order, and how much of it a plan may take
//! - [`portion`]  shares of a volume, and whose they are
//! - [`cut`]      files of some owners that there is room for
//! - [`quota`]    owners and directories over their limit, and what goes then
//! - [`watermark`] a volume over its watermark, and what goes then
//! - [`needed`]   what both share: which files they may take, and as many as are needed
//! - `tail`       what depends on the rest: symbolic links, and directories that are empty once it is away
//! - [`links`]    symbolic links that may go, and when
//! - [`units`]    directory rules: the newest use of anything below
//! - `reach`      which rules can speak of which directories
//! - `verdicts`   what globs say of directories, each asked once
//! - [`announced`] rules that take only what was named long enough before
//! - [`expiring`] what expires soon
//! - [`freed`]    whether what was deleted came free
//! - [`forecast`], [`growth`]  what will expire when, and when a limit will be reached
//! - [`kept`]     why files stay (values); [`nothing`] why a rule takes nothing; [`near`] what lies near
//! - [`idle`]     patterns that match nothing, and what may have been meant
//! - [`explain`]  the same verdicts for one path, in words; `subject` is that path
//!
//! What may never happen: a candidate that the index does not know to be expired.

pub mod allowance;
pub mod announced;
pub mod apart;
pub mod blind;
pub mod blocks;
mod chosen;
pub mod circumstances;
pub mod cut;
pub mod evaluate;
pub mod evaluation;
pub mod expiring;
pub mod explain;
mod files;
pub mod forecast;
pub mod forgiven;
pub mod freed;
pub mod growth;
pub mod idle;
pub mod kept;
pub mod last_use;
pub mod limits;
pub mod links;
pub mod near;
pub mod needed;
pub mod nothing;
pub mod pick;
pub mod portion;
pub mod quota;
mod reach;
pub mod rooted;
pub mod rule;
pub mod sample;
pub mod schedule;
pub mod scope;
mod subject;
mod tables;
mod tail;
pub mod units;
mod verdicts;
pub mod watermark;
pub mod whom;
