//! What things cost: a round of deciding, by size of the cluster, and a question to a service.

pub mod planner;
pub mod probes;
