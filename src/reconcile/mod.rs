//! The loop: triggers, pass, execute.
//!
//! Each pass observes what may have changed, plans, and begins what is ready; events only
//! wake it. The story it tells is drawn from differences between passes.

mod begin;
mod controller;
mod execute;
pub mod handle;
pub mod host;
pub mod load;
pub mod monitors;
mod observe;
mod report;
mod requests;
mod run;
pub mod shared;

pub use controller::held;
pub use observe::network_names;
pub use report::view;
pub use requests::preview;
pub use run::{Beginning, Channels, run};
