//! Hatchery keeps one Linux machine in the state that a YAML spec describes: systemd-nspawn
//! containers, host processes, the networks between them, services with health checks, and
//! rendered files such as an nginx upstream. Read this first.
//!
//! # The way of the data
//!
//! ```text
//! text --spec--> Spec --graph--> Desired ─┐
//! host --driver--> Observed ──────────────┼─plan──> Plan --reconcile--> driver steps --> host
//! what came before: Memory ───────────────┘                 ^ └─> Memory        │
//!                                                           └──── wake-ups ─────┘
//! ```
//!
//! - [`spec`] reads YAML into typed values with their places, and validates them. A broken spec
//!   is refused whole, each error at its line.
//! - [`graph`] evaluates expressions, expands replicas, gives names and addresses, and orders
//!   everything: the result is what the world is to be.
//! - [`template`] renders text from the registry's catalog, and says what it lacks instead of
//!   fetching it. [`registry`] is that catalog. [`health`] turns answers of probes into
//!   passing, warning and critical.
//! - [`plan`](mod@plan) is one pure function of what is wanted, what is there, what is
//!   remembered and the time. Its plan holds every outstanding action: ready, or waiting on
//!   something that it names.
//! - [`reconcile`] is the loop. It observes what may have changed, plans, and begins what is
//!   ready. Events only wake it; none carries meaning that looking again could not recover.
//! - [`driver`] is the host behind small traits: cgroups and nspawn, netlink and nftables,
//!   files, commands, probes. Drivers see and do; they decide nothing.
//! - [`source`] follows files, [`store`] keeps what is kept on disk, [`api`] serves the control
//!   socket and the registry in Consul's form, [`cli`] is what a person types.
//!
//! The first six are the functional core: they name no runtime, no file system, no clock.
//! `tests/tidy.rs` holds that line, and who may name whom.
//!
//! # The truth
//!
//! Whether something runs is read from the kernel, and whose it is stands on the object: a
//! `trusted.*` attribute on a workload's cgroup, an alias on links, the name of an nft table,
//! an attribute on rendered files. So the controller may be killed at any instruction; the
//! next one adopts what runs, clears what was half made, and goes on. Nothing on disk is
//! needed for that.

pub mod api;
pub mod cli;
pub mod driver;
pub mod graph;
pub mod health;
pub mod plan;
#[doc(hidden)]
pub mod planted;
pub mod reconcile;
pub mod registry;
pub mod source;
pub mod spec;
pub mod store;
pub mod template;
