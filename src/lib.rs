//! Hatchery keeps one Linux machine in the state that a YAML spec describes.

pub mod api;
pub mod cli;
pub mod driver;
pub mod graph;
pub mod health;
pub mod plan;
pub mod reconcile;
pub mod registry;
pub mod source;
pub mod spec;
pub mod store;
pub mod template;
