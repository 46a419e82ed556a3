//! Tests that cross rooms and need no lab, in one program: each is linked with all that Holdfast is made of, and what one of them leaves
//! of the processors another one takes.

mod kits;
mod lease;
mod pages;
mod programs;
mod scenarios;
mod seeded_voters;
mod simulator;
mod units;
mod workspace;
