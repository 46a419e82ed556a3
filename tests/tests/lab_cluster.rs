//! The cluster as a whole in the lab: its voters, members and stores, and what reaches its sockets.

mod disk;
mod garbage;
mod members;
mod restore;
mod supervisors;
mod voters;
