//! YAML -> [`model::Spec`], with places; validation. The only user of the YAML crates.

pub mod diagnostic;
pub mod model;
pub mod node;
pub mod time;
