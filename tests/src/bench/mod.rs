//! What things cost: a round of deciding, by size of the cluster, a question to a service, and the way from a death to an
//! order.

pub mod planner;
pub mod probes;
pub mod reaction;
