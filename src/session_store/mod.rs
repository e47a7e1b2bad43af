//! Which server issued a session, for sessions that carry no tag of ours.

pub mod memory;
