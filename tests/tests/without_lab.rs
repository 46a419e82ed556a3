//! What needs no lab: the simulator, scenarios, and the shape of the repository and its pages.

mod lease;
mod pages;
mod programs;
mod scenarios;
mod simulator;
mod units;
mod workspace;
