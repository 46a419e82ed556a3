//! The lab (real hosts, guests and power switches on one machine), the quickstart, the benchmarks, chaos, scenarios, and what
//! tests share.

pub mod bench;
pub mod chaos;
pub mod lab;
pub mod quickstart;
pub mod scenario;
pub mod simulator;
pub mod threads;
pub mod voters;
