//! What people are told in the lab, and what they can say.

mod alerts;
mod cli;
mod operators;
