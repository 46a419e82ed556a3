//! Tests of the lab that have one scene in turn ([`holdfast_tests::lab::Lent`]): building one takes longer than some of them, and as
//! programs of their own each file would build another.

mod cli;
mod frozen;
mod garbage;
mod hosts;
mod inside;
mod migrate;
mod operators;
mod supervisors;
