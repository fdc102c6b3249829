//! purge-agent: records when files were last used, and purges what nobody uses any more.
//!
//! Data flows down this list. `docs/architecture/00-map.md` draws it, and names the imports that still run the other way.
//!
//! - [`model`]   the few values that every module speaks of: times, kinds, identities
//! - [`path`]    paths that come from clients, by their words alone
//! - [`clock`]   the agent's own time, which no step of the wall clock moves
//! - [`format`]  how values become bytes on disk: integers and checksummed frames
//! - [`pulse`]   a loop that shows that it goes round
//! - [`probe`]   whether a place on disk takes changes, looked at again and again
//! - [`work`]    what a volume's work came to, for metrics
//! - [`config`]  TOML -> checked, typed configuration
//! - [`accounts`] user and group names -> ids
//! - [`secret`]  where secrets are
//! - [`id`]      names for plans, runs and notices
//! - [`descriptors`] who may have how many descriptors open
//! - [`sys`]     the only `unsafe`: fanotify, file handles, openat2, statx, getdents
//! - [`sight`]   how much of a path one user may know
//! - [`collect`] kernel events -> accesses and namespace changes as values
//! - [`index`]   the clock column, pages, paths, totals and coverage, kept in sled
//! - [`scan`]    the first index of a volume, and reconciling
//! - [`policy`]  pure: (index view, rules, now) -> plan with reasons
//! - [`purge`]   saved plans, the guarded delete, runs, holds
//! - [`notify`]  notices: who is told what, durably and once
//! - [`volume`]  one watched volume: wires collector, index and scan together
//! - [`metrics`] what the agent counts, in Prometheus' text format
//! - [`roles`]   who may call what
//! - [`tls`]     certificates of the server and of its clients
//! - [`in_force`] the configuration in force
//! - [`doctor`]  what this host gives, with verdicts and cures
//! - [`log`]     where the log goes, and in which form
//! - [`serve`]   gRPC; translates, decides nothing
//! - [`reload`]  a configuration that changes while the agent runs
//! - [`handover`] event queues that outlive the process, in systemd's keeping or the parent's
//! - [`parent`]  keeps them where no systemd does, and starts the agent again
//! - [`reboot`]  what can be known of a reboot by order
//! - [`watchdog`] tells systemd that the loops go round
//! - [`arguments`] the command line
//! - [`patterns`] what `check` asks a running agent
//! - [`demo`]    the main job in one command

pub mod accounts;
pub mod arguments;
pub mod clock;
pub mod collect;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod doctor;
pub mod format;
pub mod handover;
pub mod host;
pub mod id;
pub mod in_force;
pub mod index;
pub mod log;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod parent;
pub mod path;
pub mod patterns;
pub mod policy;
pub mod probe;
pub mod pulse;
pub mod purge;
pub mod query;
pub mod reboot;
pub mod reload;
pub mod roles;
pub mod scan;
pub mod schedule;
pub mod secret;
pub mod serve;
pub mod sight;
#[allow(unsafe_code)]
pub mod sys;
pub mod tls;
pub mod volume;
pub mod watchdog;
pub mod work;
