//! YAML text -> a located tree, in bounded memory and time.

pub(super) mod load;
mod mapping;
mod syntax;
pub(super) mod tree;

#[cfg(test)]
mod tests;
