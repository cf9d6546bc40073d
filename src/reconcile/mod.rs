//! The loop: triggers, pass, execute.
//!
//! Each pass observes what may have changed, plans, and begins what is ready; events only
//! wake it. The story it tells is drawn from differences between passes.

mod begin;
mod carried;
mod checks;
mod controller;
pub mod engine;
mod execute;
pub mod handle;
mod happening;
mod history;
pub mod host;
mod inputs;
pub mod load;
pub mod monitors;
mod observe;
mod offered;
pub mod outlook;
mod reading;
mod report;
mod requests;
mod run;
mod schedule;
pub mod shared;
pub mod sync;
#[cfg(test)]
mod tests;
mod turn;

pub use controller::held;
pub use engine::Beginning;
pub use execute::{Done, Job};
pub use observe::network_names;
pub use offered::removes_all;
pub use report::view;
pub use run::{Channels, run};
