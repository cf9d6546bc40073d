//! Spec -> dependency graph; start and stop order; cycle paths. The only user of petgraph.

pub mod desired;
