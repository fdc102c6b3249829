//! purge-agent: records when files were last used, and purges what no process uses any more.
//!
//! This crate wires the others together and answers clients. What it wires lies in `crates/`, a layer each: the arrows between them are
//! in their `Cargo.toml`, and none runs the other way. `docs/architecture/00-map.md` draws it.
//!
//! Data flows down this list.
//!
//! - [`arguments`] the command line
//! - [`in_force`] the configuration in force
//! - [`volume`]   one watched volume: wires collector, index and scan together
//! - [`host`]     all volumes, rules, plans and runs together
//! - [`schedule`] what comes due: plans, notices, freeing the trash
//! - [`work`]     what a volume's work came to; [`metrics`] what the agent counts, in Prometheus' text format
//! - [`doctor`]   what this host gives, with verdicts and cures
//! - [`roles`]    who may call what; [`tls`] certificates of the server and of its clients
//! - [`serve`]    gRPC; translates, decides nothing
//! - [`reload`]   a configuration that changes while the agent runs
//! - [`log`]      where the log goes, and in which form
//! - [`parent`]   keeps the event queues where no systemd does, and starts the agent again
//! - [`reboot`]   what can be known of a reboot by order
//! - [`watchdog`] tells systemd that the loops go round
//! - [`patterns`] what `check` asks a running agent
//! - [`demo`]     the main job in one command
//! - [`mounting`] the mount by which users come to a volume
//! - [`once`]     scan, plan, apply and end: a job in a container

pub mod arguments;
pub mod demo;
pub mod doctor;
pub mod host;
pub mod in_force;
pub mod log;
pub mod metrics;
pub mod mounting;
pub mod once;
pub mod parent;
pub mod patterns;
pub mod reboot;
pub mod reload;
pub mod roles;
pub mod schedule;
pub mod serve;
pub mod tls;
pub mod volume;
pub mod watchdog;
pub mod work;
