//! A plan as readers get it, on the terminal and over the control socket.

use serde::{Deserialize, Serialize};

use super::model::{Change, Detail, FileDiff, Gate, Item, Plan};
use crate::spec::node::NodeId;

/// A plan as readers get it: no steps, no contents but the diffs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The version of this form; 1.
    pub format_version: u32,
    /// The stack.
    pub stack: String,
    /// Start waves.
    pub waves: Vec<Vec<NodeId>>,
    /// What is outstanding.
    pub items: Vec<ItemView>,
    /// Items that add (a replacement adds and destroys).
    pub add: usize,
    /// Items that change in place.
    pub change: usize,
    /// Items that destroy.
    pub destroy: usize,
}

/// One item as readers get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemView {
    /// Whose.
    pub node: NodeId,
    /// What becomes of it.
    pub change: Change,
    /// Why.
    pub reason: String,
    /// Whether it can be done now.
    pub gate: Gate,
    /// Attributes.
    pub details: Vec<Detail>,
    /// The change of a rendered file.
    pub diff: Option<FileDiff>,
}

impl ItemView {
    /// What a reader sees of `item`.
    pub fn new(item: &Item) -> Self {
        ItemView {
            node: item.node.clone(),
            change: item.change,
            reason: item.reason.clone(),
            gate: item.gate.clone(),
            details: item.details.clone(),
            diff: item.diff.clone(),
        }
    }
}

impl PlanView {
    /// The JSON Schema of this form, as text.
    pub const SCHEMA: &str = include_str!("schema.json");

    /// What a reader sees of `plan`.
    pub fn new(stack: &str, plan: &Plan) -> Self {
        let (add, change, destroy) = plan.counts();
        PlanView {
            format_version: 1,
            stack: stack.to_owned(),
            waves: plan.waves.to_vec(),
            items: plan.items.iter().map(ItemView::new).collect(),
            add,
            change,
            destroy,
        }
    }
}
