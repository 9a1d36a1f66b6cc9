//! The journal through its public face and its file: what is kept, what is refused, what a kill leaves.
//!
//! Every test has a file of its own. What has to be true of a process that is killed or short of disk is tried on
//! a process: the test starts itself again, with the path of its file in the environment.

mod claims;
mod damage;
mod files;
mod kills;
mod restarts;
mod world;
