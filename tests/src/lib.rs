//! The lab (real hosts, guests and power switches on one machine), the quickstart, and what lab tests share.

pub mod lab;
pub mod quickstart;
